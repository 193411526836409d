// C++ exceptions become the classes of pycoll/errors.py, with the same sentence.
#pragma once
#include <pybind11/pybind11.h>

namespace pycoll::bind {
// For one extension module; each needs its own.
void translate_errors();
}  // namespace pycoll::bind
