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
  static Floats cleared(Floats v, uint32_t lanes) {
    return as<Floats>(_mm512_maskz_mov_ps(__mmask16(~lanes), as<__m512>(v)));
  }
  // Compressed in a register and then stored whole: compressing to memory is microcode on Zen 4.
  static void append(Candidates& to, Floats v, size_t first, uint32_t lanes) {
    const Bits lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const auto mask = __mmask16(lanes);
    const __m512i index = _mm512_maskz_compress_epi32(mask, as<__m512i>(lane + uint32_t(first)));
    store(reinterpret_cast<std::byte*>(to.index + to.entries), index);
    store_floats(to.value + to.entries, _mm512_maskz_compress_ps(mask, as<__m512>(v)));
    to.entries += size_t(__builtin_popcount(lanes));
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
