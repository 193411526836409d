#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)
#include "kernels/isa_avx512.h"
#include "kernels/reduce_body.h"

namespace pycoll::kernels {
namespace {
constexpr Table kTable = table_of<Avx512>("avx512");
}

const Table* avx512_table() {
  return &kTable;
}

}  // namespace pycoll::kernels

#else
#include "kernels/reduce_table.h"

const pycoll::kernels::Table* pycoll::kernels::avx512_table() {
  return nullptr;
}

#endif
