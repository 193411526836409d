// The elements of largest magnitude on a device: the contracts of select_topk and select_near in topk.h.
//
// sample    a floor from topk_sample.h, two digits of 11 bits; of an exact selection the first time only
// collect   one pass over the array: residual += in, entries that reach the floor become candidates and leave the
//           residual; as a rule at least k, and few more. A near selection ends here if they are as many as it promises
// restore   if they were too few, or had no room: back into the residual
// refine    three times, 11, 10 and 10 bits: the k-th magnitude, of the candidates, or then of the whole array
// emit      what is above it, and the first of what is equal; candidates that are not wanted go back
//
// All decisions are made on the device, so nothing waits for the host. An exact selection's next floor lies below the
// k-th magnitude by a margin that adapts; a near one's depends on nothing but the input.
#pragma once
#include "kernels/device/compact.h"
#include "kernels/device/histogram.h"
#include "kernels/element.h"
#include "kernels/topk.h"
#include "kernels/topk_sample.h"

namespace pycoll::kernels::device {

// What stays between the exact selections of one array; zero before the first.
struct TopkKept {
  uint32_t floor;   // least size of a candidate; 0: not known
  uint32_t margin;  // of the floor below the k-th size
};

// Of one selection; zero before it.
struct TopkWork {
  uint32_t floor;           // of this selection
  uint32_t candidates;      // elements that reached the floor, with room or without
  uint32_t from_array;      // 1: the candidates did not do
  uint32_t known;           // 1: the rule is found
  uint32_t prefix, wanted;  // the upper bits of the k-th size, and how many have them or are yet to be found
  Rule rule;
  uint32_t next[2];     // tiles of collect and emit
  uint32_t arrived[5];  // blocks of refine and sample
  uint32_t bins[5][kBins];
};

struct TopkJob {
  Floats in, residual;  // residual.data may be null
  uint32_t fewest, k;   // how many entries will do; at most the count
  TopkSample sample;
  Entries out;        // k
  uint32_t* entries;  // how many there are
  Entries candidates;
  uint32_t room;   // for candidates
  TopkKept* kept;  // null: of a near selection
  TopkWork* work;
  uint64_t* status;  // two for each tile of the array, zero before

  PYCOLL_DEVICE uint32_t tiles() const { return uint32_t((in.count + kTile - 1) / kTile); }
  PYCOLL_DEVICE uint32_t collected() const { return work->candidates < room ? work->candidates : room; }
};

// The digit `level` (0, 1) of the sample's threshold, which becomes the floor.
template <class C>
PYCOLL_DEVICE void sample(C& on, const TopkJob& job, uint32_t level) {
  TopkWork& work = *job.work;
  const bool kept = job.kept && job.kept->floor, first = on.block() == 0 && on.thread() == 0;
  if (kept || job.sample.rank == 0) {
    if (first) work.floor = kept ? job.kept->floor : 1;
    return;
  }
  constexpr uint32_t width = 11;
  static_assert(1u << width == kBins && TopkSample::kTruncated + 2 * width == 31);
  const Digit digit{work.prefix, TopkSample::kTruncated + (level == 0 ? width : 0), width};
  const uint32_t wanted = level == 0 ? uint32_t(job.sample.rank) : work.wanted;
  histogram(on, work.bins[3 + level], digit, job.sample.count, [&](uint64_t i) {
    const uint64_t at = job.sample[i];
    return job.residual.data ? canonical(job.in.data[at] + job.residual.data[at]) : job.in.data[at];
  });
  if (!last_block(on, &work.arrived[3 + level])) return;
  const Picked picked = pick(on, work.bins[3 + level], wanted);
  if (on.thread() != 0) return;
  const uint32_t upto = digit.upto(picked.digit);
  work.prefix = upto;
  work.wanted = wanted - picked.above;
  if (level == 1) work.floor = upto ? upto << TopkSample::kTruncated : 1;
}

// A tile's elements that this thread holds, and which tile it is.
struct Held {
  float x[kRows][kPack];
  uint32_t tile;
  uint64_t first, count;  // the index of x[0][0], and of how many there are; row r is kRow further each

  template <class C>
  PYCOLL_DEVICE Held(C& on, uint32_t tile, const Floats& from)
      : tile(tile), first(uint64_t(tile) * kTile + warp(on) * kSpan + lane(on) * kPack), count(from.count) {
    PYCOLL_UNROLL
    for (uint32_t r = 0; r < kRows; ++r) from.load(row(r), x[r]);
  }
  PYCOLL_DEVICE uint64_t row(uint32_t r) const { return first + r * kRow; }
};

// Where elements that a rule wants go, in order, as long as there is room.
struct Wanted {
  Rule rule;
  uint64_t* status;
  Entries out;
  uint32_t room;
};

// Which of this thread's elements were written, a bit for each, and what this tile and all before it have.
struct Taken {
  uint32_t of[kRows];
  Counts upto;
};

// `index(r, c)` is an element's index.
template <class C, class Index>
PYCOLL_DEVICE Taken write_wanted(C& on, const Wanted& to, const Held& held, Index index) {
  Marks marks{};
  PYCOLL_UNROLL
  for (uint32_t r = 0; r < kRows; ++r) {
    PYCOLL_UNROLL
    for (uint32_t c = 0; c < kPack; ++c) {
      const bool there = held.row(r) + c < held.count;
      const uint32_t size = topk_size(held.x[r][c]);
      marks.certain[r] |= uint32_t(there && size > to.rule.above) << c;
      marks.ties[r] |= uint32_t(there && to.rule.ties && size == to.rule.above) << c;
    }
  }
  Taken taken;
  Counts before[kRows];
  taken.upto = place_rows(on, to.status, held.tile, marks, before);
  PYCOLL_UNROLL
  for (uint32_t r = 0; r < kRows; ++r) {
    taken.of[r] = 0;
    PYCOLL_UNROLL
    for (uint32_t c = 0; c < kPack; ++c) {
      const bool is_certain = marks.certain[r] >> c & 1u, is_tie = marks.ties[r] >> c & 1u;
      const uint64_t place = to.rule.places(before[r]);
      if ((is_certain || (is_tie && before[r].ties < to.rule.ties)) && place < to.room) {
        to.out.index[place] = index(r, c);
        to.out.value[place] = held.x[r][c];
        taken.of[r] |= 1u << c;
      }
      before[r] = before[r] + Counts{is_certain, is_tie};
    }
  }
  return taken;
}

// What is to be done about this many candidates. By one thread.
PYCOLL_DEVICE void decide(const TopkJob& job, uint32_t candidates) {
  TopkWork& work = *job.work;
  work.candidates = candidates;
  work.prefix = 0, work.wanted = job.k;
  *job.entries = job.k;
  // A floor of 1 is no threshold, and leaves out the zeros.
  const bool enough = candidates >= (work.floor > 1 ? job.fewest : job.k);
  work.from_array = !enough || candidates > job.room;
  if (enough && candidates <= job.k) {
    work.known = 1, work.rule = {work.floor - 1, 0};
    *job.entries = candidates;
  } else if (candidates < job.k && work.floor == 1) {  // they are all that is not zero
    work.known = 1, work.rule = {0, job.k - candidates};
  }
}

template <class C>
PYCOLL_DEVICE void collect(C& on, const TopkJob& job) {
  const Wanted to{{job.k ? job.work->floor - 1 : ~0u, 0}, job.status, job.candidates, job.room};
  for (uint32_t tile; (tile = next_tile(on, &job.work->next[0])) < job.tiles();) {
    Held held(on, tile, job.in);
    PYCOLL_UNROLL
    for (uint32_t r = 0; r < kRows; ++r) {
      if (!job.residual.data) break;
      float lost[kPack];
      job.residual.load(held.row(r), lost);
      PYCOLL_UNROLL
      for (uint32_t c = 0; c < kPack; ++c) held.x[r][c] = canonical(held.x[r][c] + lost[c]);
    }
    const Taken taken = write_wanted(on, to, held, [&](uint32_t r, uint32_t c) { return uint32_t(held.row(r) + c); });
    PYCOLL_UNROLL
    for (uint32_t r = 0; r < kRows; ++r) {
      if (!job.residual.data) break;
      PYCOLL_UNROLL
      for (uint32_t c = 0; c < kPack; ++c) held.x[r][c] = taken.of[r] >> c & 1u ? 0 : held.x[r][c];
      job.residual.store(held.row(r), held.x[r]);
    }
    if (tile == job.tiles() - 1 && on.thread() == 0) decide(job, taken.upto.certain);
  }
}

template <class C>
PYCOLL_DEVICE void restore(C& on, const TopkJob& job) {
  if (!job.work->from_array || !job.residual.data) return;
  const uint32_t count = job.collected(), stride = on.blocks() * kThreads;
  for (uint32_t i = on.block() * kThreads + on.thread(); i < count; i += stride)
    job.residual.data[job.candidates.index[i]] = job.candidates.value[i];
}

// The digit `level` (0, 1, 2) of the k-th size.
template <class C>
PYCOLL_DEVICE void refine(C& on, const TopkJob& job, uint32_t level) {
  TopkWork& work = *job.work;
  if (work.known) return;
  const float* const array = job.residual.data ? job.residual.data : job.in.data;
  const float* const values = work.from_array ? array : job.candidates.value;
  const Digit digit{work.prefix, 20 - 10 * level, level == 0 ? 11u : 10u};
  const uint32_t wanted = work.wanted;
  histogram(on, work.bins[level], digit, work.from_array ? job.in.count : work.candidates,
            [&](uint64_t i) { return values[i]; });
  if (!last_block(on, &work.arrived[level])) return;
  const Picked picked = pick(on, work.bins[level], wanted);
  if (on.thread() != 0) return;
  work.prefix = digit.upto(picked.digit);
  work.wanted = wanted - picked.above;
  if (level == 2) work.rule = {work.prefix, work.wanted};
}

// Where candidates are looked for next time. By one thread.
PYCOLL_DEVICE void keep(const TopkJob& job) {
  TopkKept kept = *job.kept;
  const uint32_t candidates = job.work->candidates, last = job.work->rule.above;
  if (kept.floor == 0) {
    kept.margin = 1 << 18;
  } else if (candidates < job.k) {
    kept.margin = kept.margin < 1u << 22 ? kept.margin * 4 : kept.margin;
  } else if (candidates - job.k > job.k / 2) {
    kept.margin = kept.margin / 2 + 1;
  }
  kept.floor = last > kept.margin ? last - kept.margin : 1;
  *job.kept = kept;
}

template <class C>
PYCOLL_DEVICE void emit(C& on, const TopkJob& job) {
  const TopkWork& work = *job.work;
  const bool from_array = work.from_array;
  const Floats array = job.residual.data ? job.residual : job.in;
  const Floats values = from_array ? array : Floats{job.candidates.value, work.candidates};
  const Wanted to{work.rule, job.status + job.tiles(), job.out, job.k};
  const uint32_t tiles = uint32_t((values.count + kTile - 1) / kTile);
  if (job.kept && on.block() == 0 && on.thread() == 0) keep(job);
  for (uint32_t tile; (tile = next_tile(on, &job.work->next[1])) < tiles;) {
    const Held held(on, tile, values);
    const auto index = [&](uint32_t r, uint32_t c) {
      const uint64_t i = held.row(r) + c;
      return from_array ? uint32_t(i) : job.candidates.index[i];
    };
    const Taken taken = write_wanted(on, to, held, index);
    if (!job.residual.data) continue;
    PYCOLL_UNROLL
    for (uint32_t r = 0; r < kRows; ++r) {
      PYCOLL_UNROLL
      for (uint32_t c = 0; c < kPack; ++c) {
        const bool there = held.row(r) + c < values.count, wanted = taken.of[r] >> c & 1u;
        if (there && wanted == from_array) job.residual.data[index(r, c)] = from_array ? 0 : held.x[r][c];
      }
    }
  }
}

}  // namespace pycoll::kernels::device
