// What it takes at least to know that all ranks have come: each writes a line of its own, and reads the others'.
#pragma once
#include <sys/mman.h>

#include <atomic>
#include <cstdint>
#include <new>

// It spins and nothing else, so there must be a core a rank. A rank that waits in vain ends with its block.
class Flags {
 public:
  static Flags* create() {
    void* const at = mmap(nullptr, sizeof(Flags), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return at == MAP_FAILED ? nullptr : new (at) Flags;
  }

  void meet(int rank, int size) {
    Flag(&flags)[kRanksMost] = flags_[++turns_ & 1];
    flags[rank].turn.store(turns_, std::memory_order_release);
    for (int peer = 0; peer < size; ++peer)
      while (flags[peer].turn.load(std::memory_order_acquire) != turns_) __builtin_ia32_pause();
  }

  static constexpr int kRanksMost = 64;

 private:
  struct alignas(64) Flag {
    std::atomic<uint32_t> turn{0};
  };
  Flag flags_[2][kRanksMost];         // used in turn
  static inline uint32_t turns_ = 0;  // of this process
};
