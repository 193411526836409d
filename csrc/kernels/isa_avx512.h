// AVX-512 F, BW, VL and DQ: isa_scalar.h says what each function does.
#pragma once
#include <immintrin.h>

#include "kernels/vector.h"

namespace pycoll::kernels {
namespace {

// gcc 12 warns of its own header in the forms without a mask; with all lanes set, both compile to the same.
constexpr __mmask16 kAll = 0xffff;

struct Avx512 {
  static constexpr size_t width = 64;
  template <class U>
  static U load_u16(const std::byte* from) {
    return as<U>(_mm512_maskz_cvtepu16_epi32(kAll, load<__m256i>(from)));
  }
  template <class U>
  static void store_u16(std::byte* to, U v) {
    store(to, _mm512_maskz_cvtepi32_epi16(kAll, as<__m512i>(v)));
  }
  template <class F>
  static F load_f16(const std::byte* from) {
    return as<F>(_mm512_maskz_cvtph_ps(kAll, load<__m256i>(from)));
  }
  template <class F>
  static void store_f16(std::byte* to, F v) {
    store(to, _mm512_maskz_cvtps_ph(kAll, as<__m512>(v), _MM_FROUND_TO_NEAREST_INT));
  }
  template <class U>
  static U load_i8(const std::byte* from) {
    return as<U>(_mm512_maskz_cvtepi8_epi32(kAll, load<__m128i>(from)));
  }
  template <class U>
  static U load_u8(const std::byte* from) {
    return as<U>(_mm512_maskz_cvtepu8_epi32(kAll, load<__m128i>(from)));
  }
  template <class U>
  static void store_low_bytes(std::byte* to, const U (&v)[2]) {
    const __m128i low = _mm512_maskz_cvtepi32_epi8(kAll, as<__m512i>(v[0]));
    store(to,
          _mm256_inserti128_si256(_mm256_castsi128_si256(low), _mm512_maskz_cvtepi32_epi8(kAll, as<__m512i>(v[1])), 1));
  }
  using Pairs = Vector<uint16_t, 32>;
  static Pairs load_pairs(const std::byte* from) { return as<Pairs>(_mm256_cvtepu8_epi16(load<__m128i>(from))); }
  static void store_pairs(std::byte* to, Pairs v) { store(to, _mm256_maskz_cvtepi16_epi8(kAll, as<__m256i>(v))); }
  template <class U>
  static uint32_t signs(U v) {
    return _mm512_movepi32_mask(as<__m512i>(v));
  }
  template <class Wide>
  static Wide multiply_low(Wide a, Wide b) {
    return as<Wide>(_mm512_maskz_mul_epu32(__mmask8(kAll), as<__m512i>(a), as<__m512i>(b)));
  }
};

}  // namespace
}  // namespace pycoll::kernels
