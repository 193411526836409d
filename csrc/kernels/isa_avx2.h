// AVX2 and F16C, which every processor with AVX2 has: isa_scalar.h says what each function does.
#pragma once
#include <immintrin.h>

#include "kernels/vector.h"

namespace pycoll::kernels {
namespace {

struct Avx2 {
  static constexpr size_t width = 32;
  template <class U>
  static U load_u16(const std::byte* from) {
    return as<U>(_mm256_cvtepu16_epi32(load<__m128i>(from)));
  }
  template <class U>
  static void store_u16(std::byte* to, U v) {
    const __m256i packed = _mm256_packus_epi32(as<__m256i>(v), as<__m256i>(v));  // within each half of the register
    store(to, _mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0b1000)));
  }
  template <class F>
  static F load_f16(const std::byte* from) {
    return as<F>(_mm256_cvtph_ps(load<__m128i>(from)));
  }
  template <class F>
  static void store_f16(std::byte* to, F v) {
    store(to, _mm256_cvtps_ph(as<__m256>(v), _MM_FROUND_TO_NEAREST_INT));
  }
  template <class U>
  static void store_low_bytes(std::byte* to, const U (&v)[4]) {
    const auto low = [&v](int i) { return as<__m256i>(U(v[i] & 0xffu)); };
    const __m256i packed =
        _mm256_packus_epi16(_mm256_packus_epi32(low(0), low(1)), _mm256_packus_epi32(low(2), low(3)));
    const __m256i in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    store(to, _mm256_permutevar8x32_epi32(packed, in_order));
  }
  template <class U>
  static uint32_t signs(U v) {
    return uint32_t(_mm256_movemask_ps(as<__m256>(v)));
  }
  template <class U>
  static U multiply_even(U a, U b) {
    return as<U>(_mm256_mul_epu32(as<__m256i>(a), as<__m256i>(b)));
  }
};

}  // namespace
}  // namespace pycoll::kernels
