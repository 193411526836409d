// The pass of top-k for AVX2.
#include "kernels/topk_body.h"

#if defined(__AVX2__)
#include <immintrin.h>

namespace pycoll::kernels {
namespace {

struct Avx2 {
  using Floats = Vector<float, 32>;
  using Bits = BitsOf<Floats>;
  static uint32_t above(Bits magnitude, int32_t bound) {
    return uint32_t(_mm256_movemask_ps(as<__m256>(as<Vector<int32_t, 32>>(magnitude) > bound)));
  }
};
constexpr TopkTable kTable = {collect<Avx2>};

}  // namespace

const TopkTable* avx2_topk() {
  return &kTable;
}

}  // namespace pycoll::kernels

#else

const pycoll::kernels::TopkTable* pycoll::kernels::avx2_topk() {
  return nullptr;
}

#endif
