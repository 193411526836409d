// How 32 elements are coded on each grid of quantize.h, over one instruction set, Isa: t to codes in lanes, codes to
// values, and both to and from memory.
#pragma once
#include "kernels/vector.h"

namespace pycoll::kernels {
namespace {

inline constexpr size_t kGroup = 32;  // elements, a multiple of every vector; blocks are multiples of it

template <class Isa>
inline constexpr size_t kLanes = Isa::width / 4;
template <class Isa>
using Floats = Vector<float, Isa::width>;
template <class Isa>
using Codes = BitsOf<Floats<Isa>>[kGroup / kLanes<Isa>];  // a code in the low bits of each lane
template <class Isa>
using Values = Floats<Isa>[kGroup / kLanes<Isa>];

// Added to a float of less than 2^22, rounds it to nearest even and leaves the integer in its low bits.
inline constexpr float kShift = 0x1.8p23f;

struct Nearest {
  template <class F>
  F shifted(F t, size_t, float) const {
    return t + kShift;
  }
};

struct Stochastic {
  const uint32_t* words;  // of element 0 and on
  template <class F>
  F shifted(F t, size_t i, float top) const {
    using Signed = Vector<int32_t, sizeof(F)>;
    const auto upper = as<Signed>(BitsOf<F>(load<BitsOf<F>>(reinterpret_cast<const std::byte*>(words + i)) >> 8));
    const F random = __builtin_convertvector(upper, F) * 0x1p-24f;
    const F near = (t + kShift) - kShift, below = near > t ? near - 1 : near;
    const F rounded = random < t - below ? below + 1 : below;
    const F least = rounded < -top ? splat<F>(-top) : rounded;
    return (least > top ? splat<F>(top) : least) + kShift;
  }
};

// Codes are the low bits of t + kShift.
struct IntegerGrid {
  static constexpr bool has_scale_of_mean = false, rounds = true;
  template <class F>
  static F value(BitsOf<F> code) {
    return as<F>(code) - kShift;
  }
  // Signed bytes to values.
  template <class Isa>
  static void widen(const std::byte* bytes, Values<Isa>& values) {
    using Narrow = Vector<int8_t, kLanes<Isa>>;
    using Wide = Vector<int32_t, Isa::width>;
    for (size_t v = 0; v < kGroup / kLanes<Isa>; ++v) {
      const Wide wide = __builtin_convertvector(load<Narrow>(bytes + v * kLanes<Isa>), Wide);
      values[v] = __builtin_convertvector(wide, Floats<Isa>);
    }
  }
};

struct Int8Grid : IntegerGrid {
  static constexpr float top = 127;
  static constexpr size_t bits = 8;
  template <class F, class Rounding>
  static BitsOf<F> code(F t, const Rounding& rounding, size_t i) {
    return as<BitsOf<F>>(rounding.shifted(t, i, top));
  }
  template <class Isa>
  static void put(std::byte* to, const Codes<Isa>& codes) {
    Isa::store_low_bytes(to, codes);
  }
  template <class Isa>
  static void get(const std::byte* from, Values<Isa>& values) {
    widen<Isa>(from, values);
  }
};

struct Int4Grid : IntegerGrid {
  static constexpr float top = 7;
  static constexpr size_t bits = 4;
  template <class F, class Rounding>
  static BitsOf<F> code(F t, const Rounding& rounding, size_t i) {
    return as<BitsOf<F>>(rounding.shifted(t, i, top));
  }
  template <class Isa>
  static void put(std::byte* to, const Codes<Isa>& codes) {
    std::byte bytes[kGroup];
    Isa::store_low_bytes(bytes, codes);
    for (size_t i = 0; i < kGroup; i += kPiece<Isa>) {
      const auto pairs = load<Pairs<Isa>>(bytes + i);
      store(to + i / 2, __builtin_convertvector(Pairs<Isa>((pairs & 0xf) | (pairs >> 4 & 0xf0)), Packed<Isa>));
    }
  }
  template <class Isa>
  static void get(const std::byte* from, Values<Isa>& values) {
    using Signed = Vector<int8_t, kPiece<Isa>>;
    std::byte bytes[kGroup];
    for (size_t i = 0; i < kGroup; i += kPiece<Isa>) {
      const auto pairs = __builtin_convertvector(load<Packed<Isa>>(from + i / 2), Pairs<Isa>);
      const auto nibbles = as<Signed>(Pairs<Isa>((pairs & 0xf) | (pairs << 4 & 0xf00)));
      store(bytes + i, Signed((nibbles ^ 8) - 8));
    }
    widen<Isa>(bytes, values);
  }

 private:
  template <class Isa>
  static constexpr size_t kPiece = Isa::width < kGroup ? Isa::width : kGroup;
  template <class Isa>
  using Pairs = Vector<uint16_t, kPiece<Isa>>;
  template <class Isa>
  using Packed = Vector<uint8_t, kPiece<Isa> / 2>;
};

template <class Format>
struct Fp8Grid {
  static constexpr bool has_scale_of_mean = false, rounds = false;
  static constexpr float top = Format::top;
  static constexpr size_t bits = 8;
  template <class F, class Rounding>
  static BitsOf<F> code(F t, const Rounding&, size_t) {
    return narrow_fp8<Format>(t);
  }
  template <class F>
  static F value(BitsOf<F> code) {
    return widen_fp8<Format, F>(code);
  }
  template <class Isa>
  static void put(std::byte* to, const Codes<Isa>& codes) {
    Isa::store_low_bytes(to, codes);
  }
  template <class Isa>
  static void get(const std::byte* from, Values<Isa>& values) {
    using F = Floats<Isa>;
    for (size_t v = 0; v < kGroup / kLanes<Isa>; ++v) {
      const auto narrow = load<Vector<uint8_t, kLanes<Isa>>>(from + v * kLanes<Isa>);
      values[v] = value<F>(__builtin_convertvector(narrow, BitsOf<F>));
    }
  }
};

// A value is 1 or -1; a code is the whole value's sign.
struct BitGrid {
  static constexpr bool has_scale_of_mean = true, rounds = false;
  static constexpr size_t bits = 1;
  template <class F, class Rounding>
  static BitsOf<F> code(F t, const Rounding&, size_t) {
    return as<BitsOf<F>>(t) & 0x80000000u;
  }
  template <class F>
  static F value(BitsOf<F> code) {
    return as<F>(BitsOf<F>(code | 0x3f800000u));
  }
  template <class Isa>
  static void put(std::byte* to, const Codes<Isa>& codes) {
    uint32_t word = 0;
    for (size_t v = 0; v < kGroup / kLanes<Isa>; ++v) word |= Isa::signs(codes[v]) << (v * kLanes<Isa>);
    store(to, word);
  }
  template <class Isa>
  static void get(const std::byte* from, Values<Isa>& values) {
    using F = Floats<Isa>;
    const uint32_t word = load<uint32_t>(from);
    for (size_t v = 0; v < kGroup / kLanes<Isa>; ++v) {
      const auto bit = splat<BitsOf<F>>(word >> (v * kLanes<Isa>)) & (splat<BitsOf<F>>(1) << iota<BitsOf<F>>());
      values[v] = bit != 0 ? splat<F>(-1) : splat<F>(1);
    }
  }
};

}  // namespace
}  // namespace pycoll::kernels
