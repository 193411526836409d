// Arrays in device memory, borrowed through __cuda_array_interface__.
#pragma once
#include <pybind11/pybind11.h>

#include <initializer_list>
#include <string>

#include "bind/borrow.h"
#include "core/error.h"
#include "kernels/device_cuda.h"

namespace pycoll::bind {

struct CudaArray {
  const char* name;
  std::byte* data = nullptr;
  size_t count = 0;  // elements

  // `type` is the typestr that is wanted, "<f4" or "|u1". Raises InvalidArgument instead of copying.
  CudaArray(const py::handle& object, const char* name, std::string_view type, Access access) : name(name) {
    PYCOLL_CHECK(py::hasattr(object, "__cuda_array_interface__"), "cuda: ", name,
                 " is no array of a CUDA device: it has no __cuda_array_interface__");
    const auto facts = object.attr("__cuda_array_interface__").cast<py::dict>();
    const auto typestr = facts["typestr"].cast<std::string>();
    PYCOLL_CHECK(typestr == type, "cuda: ", name, " has elements of type ", typestr, ", wanted ", type);
    count = 1;
    const auto shape = facts["shape"].cast<py::tuple>();
    for (const auto extent : shape) count *= extent.cast<size_t>();
    if (count > 0 && facts.contains("strides") && !facts["strides"].is_none()) {
      ptrdiff_t step = type == "|u1" ? 1 : 4;
      const auto strides = facts["strides"].cast<py::tuple>();
      for (size_t axis = shape.size(); axis-- > 0; step *= shape[axis].cast<ptrdiff_t>())
        PYCOLL_CHECK(strides[axis].cast<ptrdiff_t>() == step || shape[axis].cast<size_t>() == 1, "cuda: ", name,
                     " is not contiguous");
    }
    const auto memory = facts["data"].cast<py::tuple>();
    PYCOLL_CHECK(access == Access::read || !memory[1].cast<bool>(), "cuda: ", name, " is read-only");
    data = reinterpret_cast<std::byte*>(memory[0].cast<uintptr_t>());
  }

  float* floats() const { return reinterpret_cast<float*>(data); }
};

// Raises InvalidArgument unless all are memory of one device.
inline void want_one_device(std::initializer_list<const CudaArray*> arrays) {
  const CudaArray* first = nullptr;
  int device = -1;
  for (const CudaArray* const array : arrays) {
    if (array->count == 0) continue;
    const int own = kernels::cuda::device_of(array->data);
    PYCOLL_CHECK(own >= 0, "cuda: ", array->name, " is not memory of a device");
    PYCOLL_CHECK(!first || own == device, "cuda: ", array->name, " is on device ", own, ", ", first ? first->name : "",
                 " on device ", device);
    if (!first) first = array, device = own;
  }
}

}  // namespace pycoll::bind
