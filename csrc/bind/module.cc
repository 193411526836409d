// _core: the core library for Python. No logic here: each method borrows, lets go of the GIL, calls.
#include "bind/bind.h"
#include "bind/errors.h"
#include "core/error.h"
#include "core/poll.h"

namespace {

// Lets Python's signal handlers run in a long wait; an exception of theirs (KeyboardInterrupt) ends it.
void run_signal_handlers() {
  if (!Py_IsInitialized()) return;
  const pybind11::gil_scoped_acquire locked;
  if (PyErr_CheckSignals() != 0) throw pycoll::Interrupted("interrupted by a signal");
}

}  // namespace

PYBIND11_MODULE(_core, m) {
  m.doc() = "The core of pycoll: communicators, transports, kernels.";
  pycoll::bind::translate_errors();
  pycoll::interrupt_hook = run_signal_handlers;
  pycoll::bind::bind_work(m);
  pycoll::bind::bind_transport(m);
  pycoll::bind::bind_codec(m);
  pycoll::bind::bind_communicator(m);
  pycoll::bind::bind_kernels(m);
  pycoll::bind::bind_records(m);
}
