// What decoders want of a payload before they write anything: its checksum, scales that encoders write, and sparse
// entries that ascend, each in its block.
#pragma once
#include "kernels/device/checksum_body.h"
#include "kernels/device/sparse_body.h"

namespace pycoll::kernels::device {
namespace {

// Zero before.
struct Found {
  uint32_t sum;     // of the checksum
  uint32_t faults;  // as many as there are, modulo 2^32: below 2^32 elements are looked at
};

struct CheckSum {
  const std::byte* payload;
  uint64_t bytes;
  Found* found;

  template <class C>
  PYCOLL_DEVICE void operator()(C& on) const {
    const uint32_t sum = on.sum(mixed_share(on, payload, bytes));
    if (lane(on) == 0) on.add(&found->sum, sum);
  }
};

// Numbers from 0 on, or the one NaN.
struct CheckScales {
  const std::byte* payload;
  uint64_t scales;
  Found* found;

  template <class C>
  PYCOLL_DEVICE void operator()(C& on) const {
    share(on, scales, [&](uint64_t i) {
      const uint32_t bits = reinterpret_cast<const uint32_t*>(payload)[i];
      if (bits >= kInfinity && bits != as<uint32_t>(quiet_nan<float>())) on.add(&found->faults, 1);
    });
  }
};

// A block of threads for each of the payload's.
struct CheckPlaces {
  SparsePayload payload;
  Found* found;

  template <class C>
  PYCOLL_DEVICE void operator()(C& on) const {
    const SparseLayout& layout = payload.layout;
    const Span span = entries_of_block(on, payload);
    const bool last = on.block() + 1 == layout.blocks;
    if (span.end > layout.entries || span.end - span.begin > SparseLayout::kBlock ||
        (last && span.end != layout.entries)) {
      if (on.thread() == 0) on.add(&found->faults, 1);
      return;
    }
    const uint16_t* const offsets = payload.offsets();
    for (uint64_t i = span.begin + on.thread(); i < span.end; i += kThreads) {
      const bool ascends = i == span.begin || offsets[i - 1] < offsets[i];
      if (!ascends || offsets[i] >= layout.length(on.block())) on.add(&found->faults, 1);
    }
  }
};

// Looks at `bytes` bytes, which begin with so many scales or are those of a sparse payload, if there is one.
struct Checked {
  const std::byte* payload;
  uint64_t bytes, scales;
  const SparsePayload* sparse;
};
template <class Machine>
void check(Machine& machine, const Checked& what, Found* found) {
  const auto blocks = [&](uint64_t threads) {
    const uint64_t wanted = (threads + kThreads - 1) / kThreads, most = machine.fill();
    return wanted < most ? wanted : most;
  };
  machine.zero(reinterpret_cast<std::byte*>(found), sizeof(Found));
  machine.run(blocks((what.bytes + 15) / 16), CheckSum{what.payload, what.bytes, found});
  machine.run(blocks(what.scales), CheckScales{what.payload, what.scales, found});
  if (what.sparse) machine.run(what.sparse->layout.blocks, CheckPlaces{*what.sparse, found});
}

}  // namespace
}  // namespace pycoll::kernels::device
