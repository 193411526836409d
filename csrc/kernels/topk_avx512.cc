// The pass of top-k for AVX-512 F, BW, VL and DQ.
#include "kernels/topk_body.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)
#include <immintrin.h>

namespace pycoll::kernels {
namespace {

struct Avx512 {
  using Floats = Vector<float, 64>;
  using Bits = BitsOf<Floats>;
  static uint32_t above(Bits magnitude, int32_t bound) {
    return _mm512_cmpgt_epi32_mask(as<__m512i>(magnitude), _mm512_set1_epi32(bound));
  }
};
constexpr TopkTable kTable = {collect<Avx512>};

}  // namespace

const TopkTable* avx512_topk() {
  return &kTable;
}

}  // namespace pycoll::kernels

#else

const pycoll::kernels::TopkTable* pycoll::kernels::avx512_topk() {
  return nullptr;
}

#endif
