// Reduction kernels: one contract, a body per instruction set, picked once at load.
//
// Contract, identical bits on every instruction set:
//   f16 and bf16 are read as f32, combined in f32, and rounded once to nearest even when stored;
//   min and max return NaN if any operand is NaN, and order -0 before +0; integers wrap; bool sum/max/or is "any",
//   prod/min/and is "all"; complex prod is the schoolbook formula, without recovery of infinities;
//   every NaN that is stored is the positive quiet one without payload (f16 7e00, bf16 7fc0, f32 7fc00000);
//   no fused multiply-add. `dst` may equal a source; partial overlap is not allowed. No alignment is required.
#pragma once
#include <cstddef>
#include <span>

#include "core/buffer.h"
#include "core/op.h"

namespace pycoll::kernels {

// dst[i] = a[i] op b[i]. avg and premul_sum add. Buffers agree in count and dtype; op is defined for dtype.
void reduce_into(Buffer dst, ConstBuffer a, ConstBuffer b, ReduceOp op);

// acc[i] = acc[i] op x[i].
inline void add_into(Buffer acc, ConstBuffer x, ReduceOp op) {
  reduce_into(acc, acc, x, op);
}

// dst[i] = (srcs[0][i] op srcs[1][i] op ...) / divisor, left to right, rounded once. srcs holds at least one pointer to
// dst.count elements. A divisor of 1 divides nothing.
void reduce_all(Buffer dst, std::span<const std::byte* const> srcs, ReduceOp op, int divisor = 1);

// dst[i] = also[i] = (a[i] op b[i]) / divisor, the bits of reduce_all. `also` may equal a source as well.
void reduce_pair(Buffer dst, std::byte* also, const std::byte* a, const std::byte* b, ReduceOp op, int divisor = 1);

// x[i] = x[i] / divisor: integers truncate toward zero. Not for bool.
void divide(Buffer x, int divisor);

// dst[i] = src[i] * factor in the precision of dst (f32 for halves, rounded once). Floating and complex types only;
// buffers agree in count and dtype.
void scale_into(Buffer dst, ConstBuffer src, double factor);

// Halves to f32 (exact) and back (nearest even, NaN stays NaN).
void widen_into(float* dst, ConstBuffer src);
void narrow_into(Buffer dst, const float* src);

}  // namespace pycoll::kernels
