#include "bind/short_call.h"

#include <string>

#include "bind/borrow.h"
#include "bind/py_call.h"
#include "comm/communicator.h"

namespace pycoll::bind {
namespace {

PyObject* full_allreduce = nullptr;  // the method with all its keywords; lives as long as the module

PyObject* call_full(PyObject* self, PyObject* const* arguments, Py_ssize_t count, PyObject* keywords) {
  const Py_ssize_t named = keywords ? PyTuple_GET_SIZE(keywords) : 0;
  std::vector<PyObject*> all{self};
  all.insert(all.end(), arguments, arguments + count + named);
  return PyObject_Vectorcall(full_allreduce, all.data(), size_t(count) + 1, keywords);
}

PyObject* allreduce(PyObject* self, PyObject* const* arguments, Py_ssize_t count, PyObject* keywords) {
  if (count != 1 || keywords || PyList_CheckExact(arguments[0]) || PyTuple_CheckExact(arguments[0]))
    return call_full(self, arguments, count, keywords);
  try {
    Communicator& communicator = py::cast<Communicator&>(py::handle(self));
    const Borrowed x(arguments[0], "allreduce", Access::write);
    Call call;
    call.kind = Kind::allreduce;
    call.out = x.buffer();
    call.in = call.out;
    call.site = locked_call_site;
    {
      const py::gil_scoped_release unlocked;
      communicator.run(call);
    }
    return Py_NewRef(arguments[0]);
  } catch (...) {
    py::detail::try_translate_exceptions();
    return nullptr;
  }
}

}  // namespace

void shorten_allreduce(py::handle communicator_class) {
  const py::object full = communicator_class.attr("allreduce");
  static const std::string doc = py::str(full.attr("__doc__"));
  static PyMethodDef method = {"allreduce", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(allreduce)),
                               METH_FASTCALL | METH_KEYWORDS, doc.c_str()};
  full_allreduce = full.inc_ref().ptr();
  communicator_class.attr("allreduce") = py::reinterpret_steal<py::object>(
      PyDescr_NewMethod(reinterpret_cast<PyTypeObject*>(communicator_class.ptr()), &method));
}

}  // namespace pycoll::bind
