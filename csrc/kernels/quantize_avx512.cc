#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)
#include "kernels/isa_avx512.h"
#include "kernels/quantize_body.h"

namespace pycoll::kernels {
namespace {
constexpr QuantizeTable kTable = quantize_table_of<Avx512>();
}

const QuantizeTable* avx512_quantize_table() {
  return &kTable;
}

}  // namespace pycoll::kernels

#else
#include "kernels/quantize_table.h"

const pycoll::kernels::QuantizeTable* pycoll::kernels::avx512_quantize_table() {
  return nullptr;
}

#endif
