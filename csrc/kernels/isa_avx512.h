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
  static void store_low_bytes(std::byte* to, const U (&v)[2]) {
    store(to, _mm512_maskz_cvtepi32_epi8(kAll, as<__m512i>(v[0])));
    store(to + 16, _mm512_maskz_cvtepi32_epi8(kAll, as<__m512i>(v[1])));
  }
  template <class U>
  static uint32_t signs(U v) {
    return _mm512_movepi32_mask(as<__m512i>(v));
  }
  template <class U>
  static U multiply_even(U a, U b) {
    return as<U>(_mm512_maskz_mul_epu32(__mmask8(kAll), as<__m512i>(a), as<__m512i>(b)));
  }
};

}  // namespace
}  // namespace pycoll::kernels
