// Which kernel does the work of an operator on an element type: many are the same one.
#pragma once
#include <cstddef>

#include "core/dtype.h"
#include "core/op.h"

namespace pycoll::kernels {

struct Kernel {
  ReduceOp op;
  DType dtype;
  size_t parts;  // elements of `dtype` in one element of the caller's type
};

constexpr ReduceOp bool_operator(ReduceOp op) {
  switch (op) {
    case ReduceOp::min:
    case ReduceOp::prod: return ReduceOp::band;
    case ReduceOp::max:
    case ReduceOp::sum: return ReduceOp::bor;
    default: return op;
  }
}

// avg and premul_sum are sums; a complex sum is the sum of its components; a bool knows and, or, xor.
constexpr Kernel kernel_of(ReduceOp op, DType dtype) {
  if (op == ReduceOp::avg || op == ReduceOp::premul_sum) op = ReduceOp::sum;
  if (dtype == DType::boolean) return {bool_operator(op), dtype, 1};
  if (is_complex(dtype) && op == ReduceOp::sum) return {op, dtype == DType::c64 ? DType::f32 : DType::f64, 2};
  return {op, dtype, 1};
}

}  // namespace pycoll::kernels
