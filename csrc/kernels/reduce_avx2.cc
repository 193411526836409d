// The reduce kernels for AVX2 and F16C, which every processor with AVX2 has.
#include "kernels/reduce_body.h"

#if defined(__AVX2__) && defined(__F16C__)
#include <immintrin.h>

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
};
constexpr Table kTable = table_of<Avx2>("avx2");

}  // namespace

const Table* avx2_table() {
  return &kTable;
}

}  // namespace pycoll::kernels

#else

const pycoll::kernels::Table* pycoll::kernels::avx2_table() {
  return nullptr;
}

#endif
