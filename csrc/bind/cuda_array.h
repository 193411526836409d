// Arrays in device memory, borrowed through __cuda_array_interface__, and the stream that they are used on.
#pragma once
#include <pybind11/pybind11.h>

#include <string>

#include "core/error.h"
#include "kernels/device_cuda.h"

namespace pycoll::bind {

namespace py = pybind11;

struct CudaArray {
  std::byte* data = nullptr;
  size_t count = 0;  // elements

  // `types` is the typestr that is wanted, "<f4" or "|u1". Raises InvalidArgument instead of copying.
  CudaArray(const py::handle& object, const char* name, std::string_view type) {
    PYCOLL_CHECK(py::hasattr(object, "__cuda_array_interface__"), "cuda: ", name,
                 " is no array of a CUDA device: it has no __cuda_array_interface__");
    const auto facts = object.attr("__cuda_array_interface__").cast<py::dict>();
    const auto typestr = facts["typestr"].cast<std::string>();
    PYCOLL_CHECK(typestr == type, "cuda: ", name, " has elements of type ", typestr, ", wanted ", type);
    count = 1;
    const auto shape = facts["shape"].cast<py::tuple>();
    for (const auto extent : shape) count *= extent.cast<size_t>();
    if (facts.contains("strides") && !facts["strides"].is_none()) {
      size_t step = type == "|u1" ? 1 : 4;
      const auto strides = facts["strides"].cast<py::tuple>();
      for (size_t axis = shape.size(); axis-- > 0; step *= shape[axis].cast<size_t>())
        PYCOLL_CHECK(strides[axis].cast<size_t>() == step || shape[axis].cast<size_t>() <= 1, "cuda: ", name,
                     " is not contiguous");
    }
    data = reinterpret_cast<std::byte*>(facts["data"].cast<py::tuple>()[0].cast<uintptr_t>());
  }

  float* floats() const { return reinterpret_cast<float*>(data); }
};

// `stream` if it is a number; else the one that the array names, or torch's current one; else the default stream.
inline kernels::cuda::Stream stream_of(const py::handle& stream, const py::handle& object) {
  const auto handle = [](const py::handle& number) { return reinterpret_cast<void*>(number.cast<uintptr_t>()); };
  if (!stream.is_none()) return handle(stream);
  const auto facts = object.attr("__cuda_array_interface__").cast<py::dict>();
  if (facts.contains("stream") && !facts["stream"].is_none()) return handle(facts["stream"]);
  if (py::type::of(object).attr("__module__").cast<std::string>().rfind("torch", 0) != 0) return nullptr;
  return handle(
      py::module_::import("torch").attr("cuda").attr("current_stream")(object.attr("device")).attr("cuda_stream"));
}

}  // namespace pycoll::bind
