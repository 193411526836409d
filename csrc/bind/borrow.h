// An array of the caller's, borrowed in place: NumPy, torch, the buffer protocol, DLPack. Raises instead of copying.
#pragma once
#include <pybind11/pybind11.h>

#include "core/buffer.h"

namespace pycoll::bind {

namespace py = pybind11;

enum class Access { read, write };

class Borrowed {
 public:
  // `operation` names the call in errors. The GIL is held, here and at destruction.
  Borrowed(py::handle array, const char* operation, Access access);
  ~Borrowed();
  Borrowed(Borrowed&& other) noexcept;
  Borrowed(const Borrowed&) = delete;
  Borrowed& operator=(const Borrowed&) = delete;

  const Buffer& buffer() const { return buffer_; }
  operator Buffer() const { return buffer_; }

 private:
  bool from_buffer(py::handle array, const char* operation, Access access);
  void from_torch(py::handle tensor, const char* operation, Access access);
  void from_dlpack(py::handle array, const char* operation);
  void from_interface(py::handle array, const char* operation, Access access);

  Buffer buffer_;
  Py_buffer view_{};  // held if view_.obj is set
  py::object keep_;   // held otherwise
};

}  // namespace pycoll::bind
