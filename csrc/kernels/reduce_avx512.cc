// The reduce kernels for AVX-512 F, BW, VL and DQ.
#include "kernels/reduce_body.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)
#include <immintrin.h>

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
};
constexpr Table kTable = table_of<Avx512>("avx512");

}  // namespace

const Table* avx512_table() {
  return &kTable;
}

}  // namespace pycoll::kernels

#else

const pycoll::kernels::Table* pycoll::kernels::avx512_table() {
  return nullptr;
}

#endif
