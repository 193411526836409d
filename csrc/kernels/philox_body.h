// Philox of philox.h, a block in each lane, over one instruction set, Isa.
#pragma once
#include "kernels/philox.h"
#include "kernels/vector.h"

namespace pycoll::kernels {
namespace {

// 64-bit products of all lanes: even lanes and odd lanes apart, then low and high halves.
template <class Isa, class U>
inline void multiply(U x, uint32_t factor, U& high, U& low) {
  using Wide = Vector<uint64_t, sizeof(U)>;
  constexpr uint64_t upper = 0xffffffff00000000;
  const U by = splat<U>(factor);
  const Wide even = as<Wide>(Isa::multiply_even(x, by));
  const Wide odd = as<Wide>(Isa::multiply_even(as<U>(Wide(as<Wide>(x) >> 32)), by));
  low = as<U>(Wide((even & ~upper) | (odd << 32)));
  high = as<U>(Wide((even >> 32) | (odd & upper)));
}

// Vector `part` of the words of all blocks in the order of elements: word j % 4 of block j / 4.
template <int part, class U, size_t... j>
inline U in_order(const U (&c)[4], std::index_sequence<j...>) {
  constexpr int lanes = sizeof...(j);
  constexpr auto block = [](int lane) { return part * (lanes / 4) + lane / 4; };
  const U x = __builtin_shufflevector(c[0], c[1], (block(j) + (j % 2 ? lanes : 0))...);
  const U y = __builtin_shufflevector(c[2], c[3], (block(j) + (j % 2 ? lanes : 0))...);
  return __builtin_shufflevector(x, y, (int(j) + (j % 4 < 2 ? 0 : lanes))...);
}

// Words of elements 4 * block to 4 * block + count - 1, and up to kPhiloxExcess beyond.
inline constexpr size_t kPhiloxExcess = 64;
template <class Isa>
void philox_words(uint32_t* words, size_t count, uint64_t block, uint64_t step, uint32_t stream, uint64_t seed) {
  using U = Vector<uint32_t, Isa::width>;
  constexpr size_t lanes = Isa::width / 4;
  static_assert(4 * lanes <= kPhiloxExcess);
  for (size_t done = 0; done < count; done += 4 * lanes, block += lanes) {
    const U low = iota<U>() + uint32_t(block);
    const U carry = low < uint32_t(block) ? splat<U>(1) : U{};
    U c[4] = {low, carry + uint32_t(block >> 32), splat<U>(uint32_t(step)), splat<U>(stream)};
    uint32_t k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
    for (int round = 0; round < 10; ++round, k0 += kPhiloxWeyl[0], k1 += kPhiloxWeyl[1]) {
      U a_high, a_low, b_high, b_low;
      multiply<Isa>(c[0], kPhiloxFactor[0], a_high, a_low);
      multiply<Isa>(c[2], kPhiloxFactor[1], b_high, b_low);
      c[0] = b_high ^ c[1] ^ k0;
      c[1] = b_low;
      c[2] = a_high ^ c[3] ^ k1;
      c[3] = a_low;
    }
    auto* const to = reinterpret_cast<std::byte*>(words + done);
    constexpr auto sequence = std::make_index_sequence<lanes>();
    store(to, in_order<0>(c, sequence));
    store(to + Isa::width, in_order<1>(c, sequence));
    store(to + 2 * Isa::width, in_order<2>(c, sequence));
    store(to + 3 * Isa::width, in_order<3>(c, sequence));
  }
}

}  // namespace
}  // namespace pycoll::kernels
