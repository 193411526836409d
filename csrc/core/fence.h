// For two sides that each store one thing and then load the other's, and of which one does so often, the other seldom
// (setting work down, and going to sleep for want of it). Without a fence between store and load on both sides, both
// can miss the other. Here the seldom side pays for both: heavy_fence() has the kernel make every running thread of
// every process that has asked for it pass one, membarrier(2).
#pragma once
#include <atomic>

namespace pycoll {

// Makes this process one that heavy_fence() reaches; false where the system does not have that.
bool reached_by_heavy_fences();

inline void light_fence(bool all_are_reached) {
  if (all_are_reached) {
    std::atomic_signal_fence(std::memory_order_seq_cst);
  } else {
    std::atomic_thread_fence(std::memory_order_seq_cst);
  }
}

void heavy_fence();

}  // namespace pycoll
