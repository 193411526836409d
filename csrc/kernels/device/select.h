// Exact top-k as a sequence of kernels, for whatever machine runs them: a CUDA stream, or fibers.
//
// A machine has run(blocks, body), in order, zero(memory, bytes), and fill(): how many blocks keep it busy.
#pragma once
#include <algorithm>
#include <cmath>

#include "kernels/device/topk_body.h"

namespace pycoll::kernels::device {

struct Estimate {
  TopkJob job;
  uint32_t samples, sampled;
  template <class C>
  PYCOLL_DEVICE void operator()(C& on) const {
    estimate(on, job, samples, sampled);
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

// min(k, in.count) entries into `out`. `scratch` has TopkLayout(in.count, k).bytes, aligned to 16.
template <class Machine>
void select_exactly(Machine& machine, Floats in, float* residual, size_t k, TopkKept* kept, Entries out,
                    std::byte* scratch) {
  if (in.count == 0 || (k == 0 && !residual)) return;
  k = std::min<size_t>(k, in.count);
  const TopkLayout layout(in.count, k);
  const TopkJob job{.in = in,
                    .residual = {residual, residual ? in.count : 0},
                    .k = uint32_t(k),
                    .out = out,
                    .candidates = {reinterpret_cast<uint32_t*>(scratch + layout.index),
                                   reinterpret_cast<float*>(scratch + layout.value)},
                    .room = uint32_t(layout.room),
                    .kept = kept,
                    .work = reinterpret_cast<TopkWork*>(scratch),
                    .status = reinterpret_cast<uint64_t*>(scratch + layout.status)};
  machine.zero(scratch, layout.index);
  const size_t tiles = (in.count + kTile - 1) / kTile;
  const uint32_t blocks = uint32_t(std::min<size_t>(machine.fill(), tiles));
  if (k == 0) return machine.run(blocks, Collect{job});
  // Of a sample, further down than k: by a quarter, and by three standard deviations.
  const size_t samples = std::min<size_t>(in.count, kSamples);
  const double share = double(samples) * double(k) / double(in.count);
  const size_t sampled = samples == in.count ? k : std::min(samples, size_t(share * 1.25 + 3 * std::sqrt(share)) + 4);
  const size_t sample_tiles = (samples + kTile - 1) / kTile;
  machine.run(uint32_t(std::min<size_t>(machine.fill(), sample_tiles)),
              Estimate{job, uint32_t(samples), uint32_t(sampled)});
  machine.run(blocks, Collect{job});
  machine.run(blocks, Restore{job});
  for (uint32_t level = 0; level < 3; ++level) machine.run(blocks, Refine{job, level});
  machine.run(blocks, Emit{job});
}

}  // namespace pycoll::kernels::device
