#if defined(__AVX2__) && defined(__F16C__)
#include "kernels/isa_avx2.h"
#include "kernels/reduce_body.h"

namespace pycoll::kernels {
namespace {
constexpr Table kTable = table_of<Avx2>("avx2");
}

const Table* avx2_table() {
  return &kTable;
}

}  // namespace pycoll::kernels

#else
#include "kernels/reduce_table.h"

const pycoll::kernels::Table* pycoll::kernels::avx2_table() {
  return nullptr;
}

#endif
