// Top-k as a sequence of kernels, for whatever machine runs them: a CUDA stream, or fibers.
//
// A machine has run(blocks, body), in order, zero(memory, bytes), and fill(): how many blocks keep it busy.
#pragma once
#include <algorithm>

#include "kernels/device/topk_body.h"

namespace pycoll::kernels::device {

struct Sample {
  TopkJob job;
  uint32_t level;
  template <class C>
  PYCOLL_DEVICE void operator()(C& on) const {
    sample(on, job, level);
  }
};
struct Collect {
  TopkJob job;
  template <class C>
  PYCOLL_DEVICE void operator()(C& on) const {
    collect(on, job);
  }
};
struct Restore {
  TopkJob job;
  template <class C>
  PYCOLL_DEVICE void operator()(C& on) const {
    restore(on, job);
  }
};
struct Refine {
  TopkJob job;
  uint32_t level;
  template <class C>
  PYCOLL_DEVICE void operator()(C& on) const {
    refine(on, job, level);
  }
};
struct Emit {
  TopkJob job;
  template <class C>
  PYCOLL_DEVICE void operator()(C& on) const {
    emit(on, job);
  }
};

// Memory of one selection, in this order.
struct TopkLayout {
  size_t room, work, status, index, value, bytes;
  constexpr TopkLayout(size_t count, size_t k)
      : room(std::min(count, 2 * k + count / 512 + 4096)),
        work(0),
        status((sizeof(TopkWork) + 15) / 16 * 16),
        index(status + (count + kTile - 1) / kTile * 2 * sizeof(uint64_t)),
        value(index + (room + 3) / 4 * 4 * sizeof(uint32_t)),
        bytes(value + room * sizeof(float)) {}
};

// What is selected, and where it goes.
struct Selection {
  Floats in;
  float* residual;    // or null
  size_t k;           // at most in.count
  TopkKept* kept;     // null: nearly k
  Entries out;        // k
  uint32_t* entries;  // how many there are
};

// `scratch` has TopkLayout(in.count, k).bytes, aligned to 16.
template <class Machine>
void select(Machine& machine, const Selection& what, std::byte* scratch) {
  const size_t count = what.in.count, k = what.k, fewest = what.kept ? k : k - k / 4;
  if (k == 0) machine.zero(reinterpret_cast<std::byte*>(what.entries), sizeof(uint32_t));
  if (k == 0 && !what.residual) return;
  const TopkLayout layout(count, k);
  const TopkJob job{.in = what.in,
                    .residual = {what.residual, what.residual ? count : 0},
                    .fewest = uint32_t(fewest),
                    .k = uint32_t(k),
                    .sample = {count, fewest},
                    .out = what.out,
                    .entries = what.entries,
                    .candidates = {reinterpret_cast<uint32_t*>(scratch + layout.index),
                                   reinterpret_cast<float*>(scratch + layout.value)},
                    .room = uint32_t(layout.room),
                    .kept = what.kept,
                    .work = reinterpret_cast<TopkWork*>(scratch),
                    .status = reinterpret_cast<uint64_t*>(scratch + layout.status)};
  machine.zero(scratch, layout.index);
  const auto blocks = [&](size_t elements) { return std::min<size_t>(machine.fill(), (elements + kTile - 1) / kTile); };
  if (k == 0) return machine.run(blocks(count), Collect{job});
  const size_t sampling = std::max<size_t>(1, blocks(job.sample.count));
  for (uint32_t level = 0; level < 2; ++level) machine.run(sampling, Sample{job, level});
  machine.run(blocks(count), Collect{job});
  machine.run(blocks(count), Restore{job});
  for (uint32_t level = 0; level < 3; ++level) machine.run(blocks(count), Refine{job, level});
  machine.run(blocks(count), Emit{job});
}

}  // namespace pycoll::kernels::device
