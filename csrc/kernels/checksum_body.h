// The sum of checksum.h over one instruction set, Isa. In an anonymous namespace, as reduce_body.h says why.
#pragma once
#include "kernels/vector.h"

namespace pycoll::kernels {
namespace {

inline constexpr uint32_t kGolden = 0x9e3779b1;

// The finalizer of MurmurHash3.
template <class U>
inline U fmix32(U x) {
  x = (x ^ (x >> 16)) * 0x85ebca6bu;
  x = (x ^ (x >> 13)) * 0xc2b2ae35u;
  return x ^ (x >> 16);
}

template <class Isa>
uint32_t mixed_sum(const std::byte* part, size_t bytes, uint32_t first) {
  using U = Vector<uint32_t, Isa::width>;
  constexpr uint32_t lanes = Isa::width / 4;
  U sums{}, places = (iota<U>() + first) * kGolden;
  size_t at = 0;
  for (; at + Isa::width <= bytes; at += Isa::width, places += lanes * kGolden) {
    sums += fmix32<U>(load<U>(part + at) + places);
  }
  uint32_t sum = 0, place = places[0];
  for (uint32_t lane = 0; lane < lanes; ++lane) sum += sums[lane];
  for (; at < bytes; at += 4, place += kGolden) {
    uint32_t word = 0;
    memcpy(&word, part + at, bytes - at < 4 ? bytes - at : 4);
    sum += fmix32(word + place);
  }
  return sum;
}

}  // namespace
}  // namespace pycoll::kernels
