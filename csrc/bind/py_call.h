// A call under construction from Python arguments: borrows the arrays, lays out the counts, runs or submits.
#pragma once
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <vector>

#include "bind/borrow.h"
#include "bind/parse.h"
#include "bind/py_feedback.h"
#include "bind/py_work.h"
#include "comm/communicator.h"

namespace pycoll::bind {

// Where in the user's program the running Python code is: the first frame outside this package. The GIL is held.
std::string call_site();
// The same where it is not held.
std::string locked_call_site();

class PyCall {
 public:
  PyCall(Communicator& communicator, Kind kind);

  Call& call() { return call_; }
  // An array, or a list of arrays taken as one.
  void input(const py::object& x);
  void output(const py::object& x);
  void in_place(const py::object& x);
  void options(const py::object& algo, const py::object& timeout);
  // How numbers are encoded on their way: objects of pycoll.codec, or None.
  void compression(const py::object& codec, const py::object& feedback, const py::object& step, bool everywhere);
  void reduction(const py::object& op, const py::object& factor);
  // Runs it and returns `result`, or submits it and returns a Work whose result that is.
  py::object go(const py::object& result, bool wait, const Counts& counts = {}, const Counts& received_counts = {});

 private:
  const Borrowed& borrow(const py::handle& x, Access access);

  Communicator& communicator_;
  const char* name_;
  Call call_;
  bool has_input_ = false;
  std::vector<Borrowed> borrowed_;
  py::object feedback_;
};

}  // namespace pycoll::bind
