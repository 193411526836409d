// What a kernel body may ask of the machine that runs it, and what bodies build from that.
//
// A body is a template over a Context, so that the same text runs on CUDA (cuda_context.h) and on the CPU (fibers.h).
// Its words are CUDA's: a grid of blocks, a block of threads, warps of 32 lanes. All lanes of a warp take part in every
// warp operation, all threads of a block in every sync().
#pragma once
#include <concepts>
#include <cstdint>

#ifdef __CUDACC__
#define PYCOLL_DEVICE __device__ inline
#define PYCOLL_UNROLL _Pragma("unroll")  // so that arrays are registers
#else
#define PYCOLL_DEVICE inline
#define PYCOLL_UNROLL
#endif

namespace pycoll::kernels::device {

inline constexpr uint32_t kWarp = 32;
inline constexpr uint32_t kThreads = 256;  // of every block
inline constexpr uint32_t kWarps = kThreads / kWarp;

template <class C>
concept Context = requires(C& on, uint32_t* word, uint64_t* wide, uint32_t value, bool flag) {
  { on.block() } -> std::same_as<uint32_t>;  // of blocks()
  { on.blocks() } -> std::same_as<uint32_t>;
  { on.thread() } -> std::same_as<uint32_t>;  // of kThreads
  // Waits for the block; what its threads wrote before is seen by all of them behind it.
  on.sync();
  // Of the warp: the value of `lane`; bit i is lane i's flag; maximum; sum modulo 2^32.
  { on.shuffle(value, value) } -> std::same_as<uint32_t>;
  { on.ballot(flag) } -> std::same_as<uint32_t>;
  { on.max(value) } -> std::same_as<uint32_t>;
  { on.sum(value) } -> std::same_as<uint32_t>;
  // Indivisible, in no order with other memory; in shared or global memory. Returns what was there.
  { on.add(word, value) } -> std::same_as<uint32_t>;
  // One word that blocks pass to each other: indivisible, never from a stale cache.
  { on.load(wide) } -> std::same_as<uint64_t>;
  on.store(wide, uint64_t{});
  // What this thread wrote before is seen by whoever sees what it writes behind this.
  on.fence();
  // Called while waiting for another block: lets it run.
  on.relax();
  // The block's one object of this type; not initialized.
  { on.template shared<uint32_t[4]>() } -> std::same_as<uint32_t (&)[4]>;
};

template <class C>
PYCOLL_DEVICE uint32_t lane(C& on) {
  return on.thread() % kWarp;
}
template <class C>
PYCOLL_DEVICE uint32_t warp(C& on) {
  return on.thread() / kWarp;
}
// A bit for every lane below this one.
template <class C>
PYCOLL_DEVICE uint32_t lanes_below(C& on) {
  return (1u << lane(on)) - 1;
}

// The sum over the lanes up to and including this one.
template <class C>
PYCOLL_DEVICE uint32_t scan_warp(C& on, uint32_t value) {
  for (uint32_t distance = 1; distance < kWarp; distance *= 2) {
    const uint32_t below = on.shuffle(value, (lane(on) - distance) % kWarp);
    if (lane(on) >= distance) value += below;
  }
  return value;
}

// Shared memory of scan_block.
struct WarpTotals {
  uint32_t of[kWarps];
};

// The sum over the threads up to and including this one.
template <class C>
PYCOLL_DEVICE uint32_t scan_block(C& on, uint32_t value) {
  WarpTotals& totals = on.template shared<WarpTotals>();
  value = scan_warp(on, value);
  if (lane(on) == kWarp - 1) totals.of[warp(on)] = value;
  on.sync();
  for (uint32_t w = 0; w < warp(on); ++w) value += totals.of[w];
  on.sync();
  return value;
}

// True in all threads of the block that comes here last of the grid's; it sees what the others wrote. `arrived` is 0
// before the kernel.
template <class C>
PYCOLL_DEVICE bool last_block(C& on, uint32_t* arrived) {
  uint32_t& ticket = on.template shared<uint32_t>();
  on.fence();
  on.sync();
  if (on.thread() == 0) ticket = on.add(arrived, 1);
  on.sync();
  const bool last = ticket == on.blocks() - 1;
  on.fence();
  return last;
}

}  // namespace pycoll::kernels::device
