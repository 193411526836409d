#if defined(__AVX2__) && defined(__F16C__)
#include "kernels/isa_avx2.h"
#include "kernels/quantize_body.h"

namespace pycoll::kernels {
namespace {
constexpr QuantizeTable kTable = quantize_table_of<Avx2>();
}

const QuantizeTable* avx2_quantize_table() {
  return &kTable;
}

}  // namespace pycoll::kernels

#else
#include "kernels/quantize_table.h"

const pycoll::kernels::QuantizeTable* pycoll::kernels::avx2_quantize_table() {
  return nullptr;
}

#endif
