#include "kernels/isa_scalar.h"
#include "kernels/reduce_body.h"

namespace pycoll::kernels {
namespace {
constexpr Table kTable = table_of<Scalar>("scalar");
}

const Table* scalar_table() {
  return &kTable;
}

}  // namespace pycoll::kernels
