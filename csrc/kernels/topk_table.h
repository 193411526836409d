// The bodies behind topk.h: one table of functions per instruction set.
#pragma once
#include <cstddef>
#include <cstdint>

namespace pycoll::kernels {

// Elements that may be among the largest, in ascending order of their indices.
struct Candidates {
  static constexpr size_t kSlack = 2048;  // bodies stop for want of room this late: so much more is allocated

  uint32_t* index;
  float* value;
  size_t entries, room;
};

// Those of in[begin, end) (of in + residual where there is one) whose magnitude is above `above` join the candidates;
// the residual becomes in + residual, and 0 for candidates. Stops early when there is no room left; returns where.
struct Collect {
  const float* in;
  float* residual;
  size_t begin, end;
  int32_t above;
};

struct TopkTable {
  size_t (*collect)(const Collect&, Candidates&);
};

// Null if not compiled in. Whether this processor can run it is the caller's question.
const TopkTable* scalar_topk_table();
const TopkTable* avx2_topk_table();
const TopkTable* avx512_topk_table();

}  // namespace pycoll::kernels
