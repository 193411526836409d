// The pass of top-k over one instruction set, Isa: its vector width in bytes, which lanes of a vector are above a bound
// (a bit each), and how lanes so marked are packed. Memory-bound by design: most vectors hold no candidate.
//
// All in an anonymous namespace, and nothing from std is called: see reduce_body.h.
#pragma once
#include "kernels/topk_table.h"
#include "kernels/vector.h"

namespace pycoll::kernels {
namespace {

template <class F>
F load_floats(const float* from) {
  return load<F>(reinterpret_cast<const std::byte*>(from));
}
template <class F>
void store_floats(float* to, F v) {
  store(reinterpret_cast<std::byte*>(to), v);
}

// Appends the lanes of v, whose first is element `first`, that are set in `lanes`.
template <class F>
void append_each(Candidates& to, F v, size_t first, uint32_t lanes) {
  float values[sizeof(F) / sizeof(float)];
  store_floats(values, v);
  for (; lanes; lanes &= lanes - 1) {
    const auto lane = unsigned(__builtin_ctz(lanes));
    to.index[to.entries] = uint32_t(first + lane);
    to.value[to.entries++] = values[lane];
  }
}

// A lane by itself, for the rest of an array.
struct Single {
  using Floats = float;
  static uint32_t above(uint32_t magnitude, int32_t bound) { return int32_t(magnitude) > bound; }
  static float cleared(float v, uint32_t lanes) { return lanes ? 0.0f : v; }
  static void append(Candidates& to, float v, size_t first, uint32_t lanes) { append_each(to, v, first, lanes); }
};

template <class Lanes, bool feedback>
inline void collect_vector(const Collect& c, Candidates& to, size_t at) {
  using F = typename Lanes::Floats;
  F v = load_floats<F>(c.in + at);
  if constexpr (feedback) v = canonical(F(v + load_floats<F>(c.residual + at)));
  const uint32_t lanes = Lanes::above(as<BitsOf<F>>(v) & 0x7fffffffu, c.above);
  if constexpr (feedback) store_floats(c.residual + at, Lanes::cleared(v, lanes));
  if (lanes) Lanes::append(to, v, at, lanes);
}

template <class Isa, bool feedback>
size_t collect_all(const Collect& c, Candidates& all) {
  constexpr size_t lanes = sizeof(typename Isa::Floats) / sizeof(float);
  Candidates to = all;  // in registers
  size_t at = c.begin;
  for (; at + lanes <= c.end && to.entries < to.room; at += lanes) collect_vector<Isa, feedback>(c, to, at);
  for (; at + lanes > c.end && at < c.end && to.entries < to.room; ++at) collect_vector<Single, feedback>(c, to, at);
  all.entries = to.entries;
  return at;
}

template <class Isa>
size_t collect(const Collect& c, Candidates& to) {
  return c.residual ? collect_all<Isa, true>(c, to) : collect_all<Isa, false>(c, to);
}

}  // namespace
}  // namespace pycoll::kernels
