// The codes of each grid, one element at a time, and how four of them lie in memory: the contract of quantize.h.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "kernels/device/pack.h"
#include "kernels/element.h"
#include "kernels/philox.h"
#include "kernels/quantize.h"

namespace pycoll::kernels::device {
namespace {  // as element.h is

inline constexpr uint32_t kInfinity = 0x7f800000;

// Integers of `bits` bits in two's complement.
template <int bits>
struct Integers {
  static constexpr uint32_t width = bits;
  static constexpr float top = float((1 << (bits - 1)) - 1);
  // To nearest even: the last place of 1.5 * 2^23 is 1.
  PYCOLL_DEVICE static uint32_t code(float t) { return as<uint32_t>(t + 0x1.8p23f) & ((1u << bits) - 1); }
  PYCOLL_DEVICE static float value(uint32_t code) { return float(int32_t(code << (32 - bits)) >> (32 - bits)); }
};

template <class Format>
struct Fp8 {
  static constexpr uint32_t width = 8;
  static constexpr float top = Format::top;
  PYCOLL_DEVICE static uint32_t code(float t) { return narrow_fp8<Format>(t); }
  PYCOLL_DEVICE static float value(uint32_t code) { return widen_fp8<Format, float>(code); }
};

struct Signs {
  static constexpr uint32_t width = 1;
  PYCOLL_DEVICE static float value(uint32_t code) { return code ? -1.0f : 1.0f; }
};

template <Grid grid>
struct CodesOf;
template <>
struct CodesOf<Grid::int8> : Integers<8> {};
template <>
struct CodesOf<Grid::int4> : Integers<4> {};
template <>
struct CodesOf<Grid::e4m3> : Fp8<E4M3> {};
template <>
struct CodesOf<Grid::e5m2> : Fp8<E5M2> {};
template <>
struct CodesOf<Grid::bit> : Signs {};

// A payload in memory: scales, then codes.
struct Payload {
  std::byte* data;
  uint64_t count;
  uint32_t log_block;

  PYCOLL_DEVICE uint64_t scales() const { return (count + (1u << log_block) - 1) >> log_block; }
  PYCOLL_DEVICE float* scale(uint64_t i) const { return reinterpret_cast<float*>(data) + (i >> log_block); }
  PYCOLL_DEVICE std::byte* codes() const { return data + (scales() * 4 + 15) / 16 * 16; }
};

// The codes of elements i to i + 3, i a multiple of 4, side by side from the lowest bit; of those behind the end
// anything.
template <uint32_t width>
PYCOLL_DEVICE uint32_t load_codes(const Payload& payload, uint64_t i) {
  const std::byte* const at = payload.codes() + i * width / 8;
  if constexpr (width == 1) {
    return uint32_t(*at) >> (i % 8);
  } else if (i + kPack <= payload.count) {
    if constexpr (width == 8) return *reinterpret_cast<const uint32_t*>(at);
    return *reinterpret_cast<const uint16_t*>(at);
  } else {
    uint32_t word = 0;
    for (uint32_t b = 0; b * 8 < (payload.count - i) * width; ++b) word |= uint32_t(at[b]) << (8 * b);
    return word;
  }
}

// Writes the lowest `bits` bits, whole bytes of them, of `word`.
PYCOLL_DEVICE void store_bits(std::byte* at, uint32_t word, uint64_t bits) {
  if (bits >= 32) {
    *reinterpret_cast<uint32_t*>(at) = word;
  } else if (bits == 16) {
    *reinterpret_cast<uint16_t*>(at) = uint16_t(word);
  } else {
    for (uint32_t b = 0; b * 8 < bits; ++b) at[b] = std::byte(word >> (8 * b));
  }
}

// Values of elements i to i + 3, which lie in one block.
template <Grid grid>
PYCOLL_DEVICE void decode(const Payload& payload, uint64_t i, float (&x)[kPack]) {
  using Codes = CodesOf<grid>;
  const uint32_t codes = load_codes<Codes::width>(payload, i);
  const float scale = *payload.scale(i);
  PYCOLL_UNROLL
  for (uint32_t c = 0; c < kPack; ++c)
    x[c] = Codes::value((codes >> (c * Codes::width)) & ((1u << Codes::width) - 1)) * scale;
}

// The value of element i.
template <Grid grid>
PYCOLL_DEVICE float decode_one(const Payload& payload, uint64_t i) {
  using Codes = CodesOf<grid>;
  const uint32_t byte = uint32_t(payload.codes()[i * Codes::width / 8]) >> (i * Codes::width % 8);
  return Codes::value(byte & ((1u << Codes::width) - 1)) * *payload.scale(i);
}

// 24 random bits for each of elements i to i + 3, i a multiple of 4.
PYCOLL_DEVICE void random(const Quantizer& how, uint64_t i, float (&random)[kPack]) {
  const uint64_t at = (how.index + i) / kPack;
  const uint32_t skip = how.index % kPack;
  uint32_t words[2 * kPack] = {};
  for (uint32_t half = 0; half < (skip ? 2u : 1u); ++half) {
    const uint64_t counter = at + half;
    const PhiloxBlock block =
        philox({{uint32_t(counter), uint32_t(counter >> 32), uint32_t(how.step), how.stream}}, how.seed);
    PYCOLL_UNROLL
    for (uint32_t c = 0; c < kPack; ++c) words[half ? kPack + c : c] = block.word[c];
  }
  PYCOLL_UNROLL
  for (uint32_t c = 0; c < kPack; ++c) {
    uint32_t word = words[c];
    PYCOLL_UNROLL
    for (uint32_t s = 1; s < kPack; ++s) word = skip == s ? words[c + s] : word;
    random[c] = float(word >> 8) * 0x1p-24f;
  }
}

}  // namespace
}  // namespace pycoll::kernels::device
