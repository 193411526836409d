#include "kernels/topk.h"

#include <algorithm>
#include <cstring>

#include "kernels/element.h"

namespace pycoll::kernels {
namespace {

uint32_t magnitude(float x) {
  return as<uint32_t>(x) & 0x7fffffffu;
}

}  // namespace

size_t select_topk(const float* in, float* residual, size_t count, size_t k, TopkState& state, Entries out,
                   Scratch& scratch) {
  if (residual)
    for (size_t i = 0; i < count; ++i) residual[i] = canonical(in[i] + residual[i]);
  k = std::min(k, count);
  if (k == 0) return 0;
  const float* const from = residual ? residual : in;
  auto* const sorted = reinterpret_cast<uint32_t*>(scratch.get(count * sizeof(uint32_t)).data());
  for (size_t i = 0; i < count; ++i) sorted[i] = magnitude(from[i]);
  std::nth_element(sorted, sorted + (k - 1), sorted + count, std::greater<>());
  const uint32_t threshold = sorted[k - 1];
  size_t ties = k - size_t(std::count_if(sorted, sorted + k, [&](uint32_t x) { return x > threshold; }));
  size_t entries = 0;
  for (size_t i = 0; i < count; ++i) {
    const uint32_t size = magnitude(from[i]);
    if (size < threshold || (size == threshold && ties == 0)) continue;
    ties -= size == threshold;
    out.index[entries] = uint32_t(i);
    std::memcpy(out.value + entries++, from + i, sizeof(float));
    if (residual) residual[i] = 0;
  }
  state.threshold = threshold;
  return entries;
}

size_t select_near(const float* in, float* residual, size_t count, size_t k, TopkState& state, Entries out,
                   Scratch& scratch) {
  return select_topk(in, residual, count, k, state, out, scratch);
}

}  // namespace pycoll::kernels
