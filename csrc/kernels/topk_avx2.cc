#if defined(__AVX2__) && defined(__F16C__)
#include "kernels/isa_avx2.h"
#include "kernels/topk_body.h"

namespace pycoll::kernels {
namespace {
constexpr TopkTable kTable = {collect<Avx2>};
}

const TopkTable* avx2_topk_table() {
  return &kTable;
}

}  // namespace pycoll::kernels

#else
#include "kernels/topk_table.h"

const pycoll::kernels::TopkTable* pycoll::kernels::avx2_topk_table() {
  return nullptr;
}

#endif
