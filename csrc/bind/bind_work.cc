#include "bind/py_work.h"

namespace pycoll::bind {

void bind_work(py::module_& m) {
  py::class_<PyWork, std::shared_ptr<PyWork>>(m, "Work",
                                              "An operation under way, as returned by a call with wait=False.")
      .def("wait", &PyWork::wait, py::arg("timeout") = py::none(),
           "Waits until the operation is done, at most `timeout` seconds (none: as long as the operation's own "
           "deadline).\n\n"
           "Raises the operation's error, or Timeout if `timeout` passed first; the operation then goes on.")
      .def("done", &PyWork::done, "True if the operation has ended, well or not. Never waits.")
      .def_property_readonly("source", &PyWork::source,
                             "Of a receive: the rank that sent the message; None until it has come.")
      .def("result", &PyWork::result,
           "Waits, then returns the array that holds the result; raises the operation's error.")
      .def("exception", &PyWork::exception, "Waits, then returns the operation's error, or None.");
}

}  // namespace pycoll::bind
