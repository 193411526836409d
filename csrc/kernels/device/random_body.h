// Random entries on a device: codec/randomk.h's, one of each stratum.
#pragma once
#include "kernels/device/sparse_body.h"
#include "kernels/strata.h"

namespace pycoll::kernels::device {
namespace {

// Calls body(j, index) for this thread's share of the strata.
template <class C, class Body>
PYCOLL_DEVICE void share_strata(C& on, const Strata& strata, Body body) {
  share(on, (strata.k + 3) / 4, [&](uint64_t quad) {
    const PhiloxBlock words = strata.words(quad);
    PYCOLL_UNROLL
    for (uint32_t c = 0; c < 4; ++c)
      if (const uint64_t j = quad * 4 + c; j < strata.k)
        body(j, Strata::choice(strata.begin(j), strata.begin(j + 1), words.word[c]));
  });
}

// residual += in.
struct Accumulate {
  Array from;

  uint64_t blocks() const { return (from.in.count + kTile - 1) / kTile; }
  template <class C>
  PYCOLL_DEVICE void operator()(C& on) const {
    const uint64_t first = first_element(on);
    PYCOLL_UNROLL
    for (uint32_t r = 0; r < kRows; ++r) {
      float x[kPack];
      from.load(first + r * kRow, x);
      from.lose(first + r * kRow, x);
    }
  }
};

// The entries of strata, which leave the residual where there is one.
struct Draw {
  Strata strata;
  const float* in;
  float* residual;  // in + residual; may be null
  Entries out;
  uint32_t* entries;
  uint32_t* head;  // of the payload: seed and step; null if it is dense

  template <class C>
  PYCOLL_DEVICE void operator()(C& on) const {
    share_strata(on, strata, [&](uint64_t j, uint64_t i) {
      out.index[j] = uint32_t(i);
      out.value[j] = residual ? residual[i] : in[i];
      if (residual) residual[i] = 0;
    });
    if (on.block() != 0 || on.thread() != 0) return;
    *entries = uint32_t(strata.k);
    if (!head) return;
    head[0] = uint32_t(strata.seed), head[1] = uint32_t(strata.seed >> 32);
    head[2] = uint32_t(strata.step), head[3] = uint32_t(strata.step >> 32);
  }
};

// The payload is seed, step, and values.
template <class Sink>
struct Undraw {
  const std::byte* payload;
  uint64_t count, k;
  ValueFormat format;
  float* out;

  template <class C>
  PYCOLL_DEVICE void operator()(C& on) const {
    const auto* const head = reinterpret_cast<const uint32_t*>(payload);
    const Coded values{const_cast<std::byte*>(payload) + Strata::kHeadBytes, k, format};
    const Strata strata{head[0] | uint64_t(head[1]) << 32, head[2] | uint64_t(head[3]) << 32, count, k};
    share_strata(on, strata, [&](uint64_t j, uint64_t i) { Sink::take(out[i], values[j]); });
  }
};

}  // namespace
}  // namespace pycoll::kernels::device
