// The pass of top-k over one instruction set, Isa (isa_scalar.h).
// Memory-bound by design: 64 elements make one word of bits, whose places are written down without a branch.
//
// All in an anonymous namespace, and nothing from std is called: see reduce_body.h.
#pragma once
#include "kernels/topk_table.h"
#include "kernels/vector.h"

namespace pycoll::kernels {
namespace {

constexpr size_t kWord = 64;     // elements
constexpr size_t kBlock = 1024;  // elements that stay in L1 from being summed to being found
static_assert(kBlock + kWord <= Candidates::kSlack);

// in[at], or the sum, which goes to the residual.
template <bool feedback, class F>
F sum(const Collect& c, size_t at) {
  F v = load<F>(reinterpret_cast<const std::byte*>(c.in + at));
  if constexpr (feedback) {
    auto* const residual = reinterpret_cast<std::byte*>(c.residual + at);
    v = canonical(F(v + load<F>(residual)));
    store(residual, v);
  }
  return v;
}

template <class F>
BitsOf<F> magnitude(F v) {
  return as<BitsOf<F>>(v) & 0x7fffffffu;
}

// A bit for each of 64 elements: whether it is above the bound. The difference is negative then; it never overflows.
template <class Isa, bool feedback>
uint64_t find(const Collect& c, size_t at) {
  using F = Vector<float, Isa::width>;
  constexpr size_t lanes = Isa::width / sizeof(float);
  uint64_t found = 0;
#pragma GCC unroll 16
  for (size_t lane = 0; lane < kWord; lane += lanes)
    found |= uint64_t(Isa::signs(uint32_t(c.above) - magnitude(sum<feedback, F>(c, at + lane)))) << lane;
  return found;
}

// Writes down at + the place of each bit. Rarely are there more than three: so many are written in any case.
size_t list(uint32_t* to, uint64_t found, size_t at) {
  const auto entries = size_t(__builtin_popcountll(found));
  for (size_t i = 0; i < 3; ++i, found &= found - 1)
    to[i] = uint32_t(at) + uint32_t(__builtin_ctzll(found | 1ull << 63));
  for (size_t i = 3; found; ++i, found &= found - 1) to[i] = uint32_t(at) + uint32_t(__builtin_ctzll(found));
  return entries;
}

template <class Isa, bool feedback>
size_t collect_all(const Collect& c, Candidates& to) {
  size_t at = c.begin;
  while (at < c.end && to.entries < to.room) {
    const size_t end = c.end - at < kBlock ? c.end : at + kBlock;
    size_t entries = to.entries;
    for (; at + kWord <= end; at += kWord) entries += list(to.index + entries, find<Isa, feedback>(c, at), at);
    for (; at < end; ++at) {
      to.index[entries] = uint32_t(at);
      entries += int32_t(magnitude(sum<feedback, float>(c, at))) > c.above;
    }
    for (; to.entries < entries; ++to.entries) {
      const uint32_t i = to.index[to.entries];
      to.value[to.entries] = feedback ? c.residual[i] : c.in[i];
      if constexpr (feedback) c.residual[i] = 0;
    }
  }
  return at;
}

template <class Isa>
size_t collect(const Collect& c, Candidates& to) {
  return c.residual ? collect_all<Isa, true>(c, to) : collect_all<Isa, false>(c, to);
}

}  // namespace
}  // namespace pycoll::kernels
