// The call that training makes most, comm.allreduce(x), without the cost of keywords and defaults.
#pragma once
#include <pybind11/pybind11.h>

namespace pycoll::bind {

// Replaces the class's method `allreduce`: one array and nothing else is done here, all other calls go to the method
// that was there.
void shorten_allreduce(pybind11::handle communicator_class);

}  // namespace pycoll::bind
