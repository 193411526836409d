#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)
#include "kernels/isa_avx512.h"
#include "kernels/topk_body.h"

namespace pycoll::kernels {
namespace {
constexpr TopkTable kTable = {collect<Avx512>};
}

const TopkTable* avx512_topk_table() {
  return &kTable;
}

}  // namespace pycoll::kernels

#else
#include "kernels/topk_table.h"

const pycoll::kernels::TopkTable* pycoll::kernels::avx512_topk_table() {
  return nullptr;
}

#endif
