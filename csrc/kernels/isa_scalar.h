// Any processor: vectors of 16 bytes, which the compiler splits where there are none.
#pragma once
#include "kernels/vector.h"

namespace pycoll::kernels {
namespace {

// What GNU vectors leave to each instruction set. U is a vector of 32-bit lanes, F one of f32.
struct Scalar {
  static constexpr size_t width = 16;
  // Integers of 16 bits in the low halves of lanes, and f16 as f32 (NaN is canonical already when stored).
  template <class U>
  static U load_u16(const std::byte* from) {
    return __builtin_convertvector(load<Vector<uint16_t, width / 2>>(from), U);
  }
  template <class U>
  static void store_u16(std::byte* to, U v) {
    using Narrow = Vector<uint16_t, width / 2>;
    store(to, __builtin_convertvector(v, Narrow));
  }
  template <class F>
  static F load_f16(const std::byte* from) {
    return widen_f16<F>(load_u16<BitsOf<F>>(from));
  }
  template <class F>
  static void store_f16(std::byte* to, F v) {
    store_u16(to, narrow_f16(v));
  }
  // The low bytes of 32 lanes, to memory.
  template <class U>
  static void store_low_bytes(std::byte* to, const U (&v)[8]) {
    using Narrow = Vector<uint8_t, width / 4>;
    for (size_t i = 0; i < 8; ++i) store(to + 4 * i, __builtin_convertvector(v[i], Narrow));
  }
  // The sign bits of all lanes, the first one lowest.
  template <class U>
  static uint32_t signs(U v) {
    return (v[0] >> 31) | (v[1] >> 31 << 1) | (v[2] >> 31 << 2) | (v[3] >> 31 << 3);
  }
  // 64-bit products of the even lanes.
  template <class U>
  static U multiply_even(U a, U b) {
    using Wide = Vector<uint64_t, width>;
    return as<U>(Wide((as<Wide>(a) & 0xffffffffu) * (as<Wide>(b) & 0xffffffffu)));
  }
};

}  // namespace
}  // namespace pycoll::kernels
