// Encoders and decoders of _cuda.
#pragma once
#include <pybind11/pybind11.h>

namespace pycoll::bind {

void bind_cuda_codec(pybind11::module_& module);

}  // namespace pycoll::bind
