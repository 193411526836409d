// What Python sees of an asynchronous operation: its Work and its result.
#pragma once
#include <pybind11/pybind11.h>

#include <memory>

#include "bind/parse.h"
#include "core/error.h"
#include "core/work.h"

namespace pycoll::bind {

namespace py = pybind11;

struct PyWork {
  std::shared_ptr<Work> work;
  py::object array;

  void wait(const py::object& timeout) {
    const double seconds = timeout.is_none() ? 3e8 : number(timeout, "wait", "timeout");
    bool done;
    {
      const py::gil_scoped_release unlocked;
      done = work->wait(seconds);
    }
    PYCOLL_CHECK_AS(Timeout, done, "wait: the operation was not done within ", seconds, " s; it goes on");
    if (const auto error = work->exception()) std::rethrow_exception(error);
  }
  bool done() const { return work->done(); }
  py::object source() const { return work->source() < 0 ? py::object(py::none()) : py::int_(work->source()); }
  py::object result() {
    wait(py::none());
    return array;
  }
  py::object exception() {
    try {
      wait(py::none());
      return py::none();
    } catch (const Interrupted&) {
      throw;
    } catch (...) {
      return py::module_::import("pycoll.errors").attr("capture")(py::cpp_function([this] { wait(py::none()); }));
    }
  }
};

}  // namespace pycoll::bind
