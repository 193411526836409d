#include "kernels/isa_scalar.h"
#include "kernels/topk_body.h"

namespace pycoll::kernels {
namespace {
constexpr TopkTable kTable = {collect<Scalar>};
}

const TopkTable* scalar_topk_table() {
  return &kTable;
}

}  // namespace pycoll::kernels
