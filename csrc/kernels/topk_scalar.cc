// The pass of top-k for any processor: vectors of 16 bytes, which the compiler splits where there are none.
#include "kernels/topk_body.h"

namespace pycoll::kernels {
namespace {

struct Scalar {
  using Floats = Vector<float, 16>;
  using Bits = BitsOf<Floats>;
  static uint32_t above(Bits magnitude, int32_t bound) {
    const auto is = as<Vector<int32_t, 16>>(magnitude) > bound;
    return uint32_t((is[0] & 1) | (is[1] & 2) | (is[2] & 4) | (is[3] & 8));
  }
};
constexpr TopkTable kTable = {collect<Scalar>};

}  // namespace

const TopkTable* scalar_topk() {
  return &kTable;
}

}  // namespace pycoll::kernels
