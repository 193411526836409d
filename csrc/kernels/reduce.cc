// Hands every call to the body of the instruction set in use.
#include "kernels/reduce.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>

#include "kernels/kernel_of.h"
#include "kernels/reduce_table.h"
#include "kernels/simd.h"

namespace pycoll::kernels {
namespace {

constexpr size_t kPairBytes = 8 << 10;  // of a result on its way to a second place: stays in the first-level cache

const Table& table() {
  static const std::array<const Table*, 3> tables = {scalar_table(), avx2_table(), avx512_table()};
  return pick(tables);
}

}  // namespace

void reduce_all(Buffer dst, std::span<const std::byte* const> srcs, ReduceOp op, int divisor) {
  assert(is_defined(op, dst.dtype) && !srcs.empty() && divisor >= 1);
  const Kernel kernel = kernel_of(op, dst.dtype);
  table().reduce[int(kernel.op)][int(kernel.dtype)](
      {dst.data, srcs.data(), srcs.size(), dst.count * kernel.parts, divisor});
}

void reduce_pair(Buffer dst, std::byte* also, const std::byte* a, const std::byte* b, ReduceOp op, int divisor) {
  assert(is_defined(op, dst.dtype) && divisor >= 1);
  const Kernel kernel = kernel_of(op, dst.dtype);
  const auto sum_pair = table().sum_pair[int(kernel.dtype)];
  if (kernel.op == ReduceOp::sum && sum_pair)
    return sum_pair({dst.data, also, a, b, dst.count * kernel.parts, divisor});
  const size_t block = kPairBytes / size_of(dst.dtype);
  for (size_t begin = 0; begin < dst.count; begin += block) {
    const Buffer part = dst[{begin, std::min(block, dst.count - begin)}];
    const size_t at = begin * size_of(dst.dtype);
    reduce_all(part, std::array{a + at, b + at}, op, divisor);
    std::memcpy(also + at, part.data, part.bytes());
  }
}

void reduce_into(Buffer dst, ConstBuffer a, ConstBuffer b, ReduceOp op) {
  assert(a.count == dst.count && b.count == dst.count && a.dtype == dst.dtype && b.dtype == dst.dtype);
  const std::byte* const srcs[] = {a.data, b.data};
  reduce_all(dst, srcs, op);
}

void divide(Buffer x, int divisor) {
  assert(x.dtype != DType::boolean);
  if (divisor == 1) return;
  const std::byte* const srcs[] = {x.data};
  reduce_all(x, srcs, ReduceOp::sum, divisor);
}

void scale_into(Buffer dst, ConstBuffer src, double factor) {
  assert(is_floating(dst.dtype) && dst.dtype == src.dtype && dst.count == src.count);
  const Kernel kernel = kernel_of(ReduceOp::sum, dst.dtype);
  table().scale[int(kernel.dtype)](dst.data, src.data, dst.count * kernel.parts, factor);
}

void widen_into(float* dst, ConstBuffer src) {
  assert(is_half(src.dtype));
  table().widen[int(src.dtype)](reinterpret_cast<std::byte*>(dst), src.data, src.count);
}

void narrow_into(Buffer dst, const float* src) {
  assert(is_half(dst.dtype));
  table().narrow[int(dst.dtype)](dst.data, reinterpret_cast<const std::byte*>(src), dst.count);
}

}  // namespace pycoll::kernels
