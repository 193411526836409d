// One function a topic; module.cc calls them all.
#pragma once
#include <pybind11/pybind11.h>

namespace pycoll::bind {
void bind_transport(pybind11::module_& m);
void bind_communicator(pybind11::module_& m);
void bind_work(pybind11::module_& m);
void bind_codec(pybind11::module_& m);
void bind_kernels(pybind11::module_& m);
void bind_records(pybind11::module_& m);
}  // namespace pycoll::bind
