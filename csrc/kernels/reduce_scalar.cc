// The reduce kernels for any processor: vectors of 16 bytes, which the compiler splits where there are none.
#include "kernels/reduce_body.h"

namespace pycoll::kernels {
namespace {

struct Scalar {
  static constexpr size_t width = 16;
  template <class U>
  static U load_u16(const std::byte* from) {
    return __builtin_convertvector(load<Vector<uint16_t, width / 2>>(from), U);
  }
  template <class U>
  static void store_u16(std::byte* to, U v) {
    using Narrow = Vector<uint16_t, width / 2>;
    store(to, __builtin_convertvector(v, Narrow));
  }
  template <class F>
  static F load_f16(const std::byte* from) {
    return widen_f16<F>(load_u16<BitsOf<F>>(from));
  }
  template <class F>
  static void store_f16(std::byte* to, F v) {
    store_u16(to, narrow_f16(v));
  }
};
constexpr Table kTable = table_of<Scalar>("scalar");

}  // namespace

const Table* scalar_table() {
  return &kTable;
}

}  // namespace pycoll::kernels
