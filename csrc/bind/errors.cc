#include "bind/errors.h"

#include "core/error.h"

namespace pycoll::bind {
namespace py = pybind11;
namespace {

void raise(const char* kind, const char* what) {
  const py::object type = py::module_::import("pycoll.errors").attr(kind);
  PyErr_SetString(type.ptr(), what);
}

}  // namespace

void translate_errors() {
  py::register_local_exception_translator([](std::exception_ptr thrown) {
    try {
      if (thrown) std::rethrow_exception(thrown);
    } catch (const PeerFailed& e) {
      const py::object type = py::module_::import("pycoll.errors").attr("PeerFailed");
      const py::object error = type(e.what(), e.rank, e.host, e.operation);
      PyErr_SetObject(type.ptr(), error.ptr());
    } catch (const InvalidArgument& e) {
      raise("InvalidArgument", e.what());
    } catch (const MismatchError& e) {
      raise("MismatchError", e.what());
    } catch (const Timeout& e) {
      raise("Timeout", e.what());
    } catch (const TransportError& e) {
      raise("TransportError", e.what());
    } catch (const DeviceError& e) {
      raise("DeviceError", e.what());
    } catch (const Interrupted&) {
      // The signal's own exception is already set.
      if (!PyErr_Occurred()) PyErr_SetNone(PyExc_KeyboardInterrupt);
    } catch (const Error& e) {
      raise("Error", e.what());
    }
  });
}

}  // namespace pycoll::bind
