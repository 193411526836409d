#include <pybind11/stl.h>

#include "algo/select.h"
#include "bind/bind.h"
#include "kernels/simd.h"

namespace pycoll::bind {
namespace py = pybind11;

void bind_kernels(py::module_& m) {
  m.def("simd", [] { return std::string(kernels::simd()); }, "The instruction set of the kernels in use.");
  m.def(
      "algorithms",
      [](const std::string& kind) {
        for (int k = 0; k < kKinds; ++k)
          if (name_of(Kind(k)) == kind) return algo::names_for(Kind(k));
        throw InvalidArgument(concat("algorithms: got \"", kind, "\", wanted a collective such as allreduce"));
      },
      py::arg("kind"));
}

}  // namespace pycoll::bind
