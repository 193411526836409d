// Python module _cuda: the reduce kernels on addresses of device memory, and encoders and decoders on CUDA arrays.
// Importable without a driver; calls then raise DeviceError.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string_view>
#include <vector>

#include "bind/cuda_codec.h"
#include "bind/errors.h"
#include "core/error.h"
#include "kernels/reduce_cuda.h"

namespace py = pybind11;
using namespace pycoll;

namespace {

// The value of an enumeration of `count` values that is called `name`.
template <class Enum>
Enum named(std::string_view name, int count, const char* what) {
  for (int i = 0; i < count; ++i) {
    if (name_of(Enum(i)) == name) return Enum(i);
  }
  throw InvalidArgument(concat("cuda: got ", what, " '", name, "'"));
}

std::byte* memory_at(uintptr_t address) {
  return reinterpret_cast<std::byte*>(address);
}

void reduce_all(uintptr_t dst, const std::vector<uintptr_t>& srcs, size_t count, std::string_view dtype,
                std::string_view op, int divisor, uintptr_t stream) {
  const Buffer out{memory_at(dst), count, named<DType>(dtype, kDTypes, "dtype")};
  const auto operation = named<ReduceOp>(op, kReduceOps, "op");
  std::vector<const std::byte*> sources;
  for (const uintptr_t src : srcs) sources.push_back(memory_at(src));
  const py::gil_scoped_release unlocked;
  kernels::cuda::reduce_all(out, sources, operation, divisor, memory_at(stream));
}

void reduce_into(uintptr_t dst, uintptr_t a, uintptr_t b, size_t count, std::string_view dtype, std::string_view op,
                 uintptr_t stream) {
  reduce_all(dst, {a, b}, count, dtype, op, 1, stream);
}

}  // namespace

PYBIND11_MODULE(_cuda, module) {
  module.doc() =
      "Kernels on a CUDA device. Of reduce_into and reduce_all, addresses are integers, as from tensor.data_ptr(), and "
      "dtypes are named as in f32, bf16, i64; of the others, arrays have a __cuda_array_interface__. A call is "
      "enqueued "
      "on `stream` (a cudaStream_t, 0 is the default) and returns; those that wait say so.";
  bind::translate_errors();
  module.attr("RUNTIME_VERSION") = kernels::cuda::runtime_version();
  module.def("device_count", &kernels::cuda::device_count,
             "Visible CUDA devices. Raises DeviceError, naming what is missing, if there is no driver or no device.");
  module.def("reduce_into", &reduce_into, py::arg("dst"), py::arg("a"), py::arg("b"), py::arg("count"),
             py::arg("dtype"), py::arg("op") = "sum", py::arg("stream") = 0,
             "dst[i] = a[i] op b[i]; dst may be a or b.");
  module.def("reduce_all", &reduce_all, py::arg("dst"), py::arg("srcs"), py::arg("count"), py::arg("dtype"),
             py::arg("op") = "sum", py::arg("divisor") = 1, py::arg("stream") = 0,
             "dst[i] = (srcs[0][i] op srcs[1][i] op ...) / divisor, rounded once; dst may be one of srcs.");
  bind::bind_cuda_codec(module);
}
