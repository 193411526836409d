// The bodies behind reduce.h: one table of functions per instruction set.
#pragma once
#include <cstddef>

#include "core/dtype.h"
#include "core/op.h"

namespace pycoll::kernels {

struct Reduction {
  std::byte* dst;
  const std::byte* const* srcs;
  size_t sources, count;
  int divisor;
};

// dst[i] = also[i] = (a[i] + b[i]) / divisor.
struct PairSum {
  std::byte *dst, *also;
  const std::byte *a, *b;
  size_t count;
  int divisor;
};

// Null where reduce.cc never looks: it asks for what kernel_of() returns.
struct Table {
  const char* name;
  void (*reduce[kReduceOps][kDTypes])(const Reduction&);
  void (*sum_pair[kDTypes])(const PairSum&);  // floating types only
  void (*scale[kDTypes])(std::byte* dst, const std::byte* src, size_t count, double factor);
  void (*widen[kDTypes])(std::byte* dst, const std::byte* src, size_t count);   // from this type to f32
  void (*narrow[kDTypes])(std::byte* dst, const std::byte* src, size_t count);  // from f32 to this type
};

// Null if not compiled in. Whether this processor can run it is the caller's question.
const Table* scalar_table();
const Table* avx2_table();
const Table* avx512_table();

}  // namespace pycoll::kernels
