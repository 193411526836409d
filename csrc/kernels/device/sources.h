// What payloads are made of: dense arrays, sums of peers' payloads, and entries of a sparse array.
//
// A source has load(), elements i to i + 3, i a multiple of 4, 0 behind the end; and lose(), which is told what the
// payload does not carry of them.
#pragma once
#include "kernels/device/codes.h"
#include "kernels/topk.h"

namespace pycoll::kernels::device {
namespace {

inline constexpr uint32_t kMostPeers = 64;

// An array, with what was lost before.
struct Array {
  Floats in, residual;  // residual.data may be null

  PYCOLL_DEVICE void load(uint64_t i, float (&x)[kPack]) const {
    in.load(i, x);
    if (!residual.data) return;
    float lost[kPack];
    residual.load(i, lost);
    PYCOLL_UNROLL
    for (uint32_t c = 0; c < kPack; ++c) x[c] = canonical(x[c] + lost[c]);
  }
  PYCOLL_DEVICE float at(uint64_t i) const { return residual.data ? in.data[i] + residual.data[i] : in.data[i]; }
  PYCOLL_DEVICE void lose(uint64_t i, const float (&lost)[kPack]) const {
    if (residual.data) residual.store(i, lost);
  }
  PYCOLL_DEVICE void lose(uint64_t i, float lost) const {
    if (residual.data && i < in.count) residual.data[i] = lost;
  }
};

// The sum of payloads of the same grid and block, from the first on.
template <Grid grid>
struct Peers {
  const std::byte* payload[kMostPeers];
  uint32_t peers;
  uint64_t count;
  uint32_t log_block;

  PYCOLL_DEVICE void load(uint64_t i, float (&x)[kPack]) const {
    PYCOLL_UNROLL
    for (uint32_t c = 0; c < kPack; ++c) x[c] = 0;
    if (i >= count) return;
    for (uint32_t p = 0; p < peers; ++p) {
      float next[kPack];
      decode<grid>({const_cast<std::byte*>(payload[p]), count, log_block}, i, next);
      PYCOLL_UNROLL
      for (uint32_t c = 0; c < kPack; ++c) x[c] = p ? x[c] + next[c] : next[c];
    }
    PYCOLL_UNROLL
    for (uint32_t c = 0; c < kPack; ++c) x[c] = i + c < count ? x[c] : 0;
  }
  PYCOLL_DEVICE float at(uint64_t i) const {
    float x[kPack];
    load(i / kPack * kPack, x);
    return i % 4 == 0 ? x[0] : i % 4 == 1 ? x[1] : i % 4 == 2 ? x[2] : x[3];
  }
  template <class Lost>
  PYCOLL_DEVICE void lose(uint64_t, const Lost&) const {}
};

// The values of entries. `residual` may be null; it is 0 where they were.
struct Values {
  Entries from;
  uint64_t entries;
  float* residual;

  PYCOLL_DEVICE void load(uint64_t i, float (&x)[kPack]) const { Floats{from.value, entries}.load(i, x); }
  PYCOLL_DEVICE void lose(uint64_t i, const float (&lost)[kPack]) const {
    if (!residual) return;
    PYCOLL_UNROLL
    for (uint32_t c = 0; c < kPack; ++c)
      if (i + c < entries && as<uint32_t>(lost[c]) != 0) residual[from.index[i + c]] = lost[c];
  }
};

}  // namespace
}  // namespace pycoll::kernels::device
