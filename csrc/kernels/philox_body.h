// Philox of philox.h, a block in each lane, over one instruction set, Isa.
#pragma once
#include "kernels/philox.h"
#include "kernels/vector.h"

namespace pycoll::kernels {
namespace {

// The even or the odd half of the lanes of a and b in turn: a, b, a, b, ...
template <int half, class V, size_t... lane>
inline V alternate(V a, V b, std::index_sequence<lane...>) {
  constexpr int lanes = sizeof...(lane);
  return __builtin_shufflevector(a, b, (half * lanes / 2 + int(lane) / 2 + (lane % 2 ? lanes : 0))...);
}

// Words of elements 4 * block to 4 * block + count - 1, and up to kPhiloxExcess beyond. A block sits in the low halves
// of lanes of 64 bits; what is in the upper ones is never looked at.
inline constexpr size_t kPhiloxExcess = 32;
template <class Isa>
void philox_words(uint32_t* words, size_t count, uint64_t block, uint64_t step, uint32_t stream, uint64_t seed) {
  using Wide = Vector<uint64_t, Isa::width>;
  constexpr size_t lanes = Isa::width / 8;
  static_assert(4 * lanes <= kPhiloxExcess);
  const Wide by_a = splat<Wide>(kPhiloxFactor[0]), by_b = splat<Wide>(kPhiloxFactor[1]);
  for (size_t done = 0; done < count; done += 4 * lanes, block += lanes) {
    Wide c0 = iota<Wide>() + block, c1 = c0 >> 32, c2 = splat<Wide>(step), c3 = splat<Wide>(stream);
    uint32_t k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
    for (int round = 0; round < 10; ++round, k0 += kPhiloxWeyl[0], k1 += kPhiloxWeyl[1]) {
      const Wide a = Isa::multiply_low(c0, by_a), b = Isa::multiply_low(c2, by_b);
      c0 = (b >> 32) ^ c1 ^ k0;
      c1 = b;
      c2 = (a >> 32) ^ c3 ^ k1;
      c3 = a;
    }
    const Wide c01 = (c0 & 0xffffffffu) | (c1 << 32), c23 = (c2 & 0xffffffffu) | (c3 << 32);
    constexpr auto sequence = std::make_index_sequence<lanes>();
    auto* const to = reinterpret_cast<std::byte*>(words + done);
    store(to, alternate<0>(c01, c23, sequence));
    store(to + Isa::width, alternate<1>(c01, c23, sequence));
  }
}

}  // namespace
}  // namespace pycoll::kernels
