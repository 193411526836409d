#include "kernels/isa_scalar.h"
#include "kernels/quantize_body.h"

namespace pycoll::kernels {
namespace {
constexpr QuantizeTable kTable = quantize_table_of<Scalar>();
}

const QuantizeTable* scalar_quantize_table() {
  return &kTable;
}

}  // namespace pycoll::kernels
