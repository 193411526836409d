// Threads that move data beside a thread that computes, perhaps on the same core.
#pragma once
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>

namespace pycoll {

// True on such a thread. It waits asleep: a thread that gives way instead gets its core back only at the scheduler's
// next tick, milliseconds later, and a message that passes through stages waits many times.
inline thread_local bool beside_work = false;

// Makes this thread one. Since Linux 6.12 a thread with a short slice interrupts others when it is woken; older kernels
// do not know the wish, and nothing is lost.
inline void work_beside() {
  beside_work = true;
  struct {  // as the kernel has it (sched_setattr(2)); not every C library declares it
    uint32_t bytes, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t slice_ns, deadline_ns, period_ns;
  } wish{};
  static_assert(sizeof wish == 48);
  if (syscall(SYS_sched_getattr, 0, &wish, sizeof wish, 0) != 0 || wish.policy != SCHED_OTHER) return;
  wish.slice_ns = 100'000;
  syscall(SYS_sched_setattr, 0, &wish, 0);
}

}  // namespace pycoll
