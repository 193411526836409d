// What every long wait does now and then, whatever it waits for: let the calling program's signal handlers run.
#pragma once
#include <atomic>

namespace pycoll {

// Throws Interrupted if the calling program wants the wait to end (Ctrl-C). Set once by the bindings.
using InterruptHook = void (*)();
inline std::atomic<InterruptHook> interrupt_hook{nullptr};

inline void poll_interrupt() {
  if (const InterruptHook hook = interrupt_hook.load(std::memory_order_relaxed)) hook();
}

}  // namespace pycoll
