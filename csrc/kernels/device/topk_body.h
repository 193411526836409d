// The k elements of largest magnitude on a device, exactly: the contract of select_topk in topk.h.
//
// estimate  first time only: a threshold from the histogram of a sample
// collect   one pass over the array: residual += in, entries that reach the threshold become candidates and leave the
//           residual; as a rule at least k, and few more
// restore   if they were fewer than k, or had no room: back into the residual
// refine    three times, 11, 10 and 10 bits: the k-th magnitude, of the candidates, or then of the whole array
// emit      what is above it, and the first of what is equal; candidates that are not wanted go back
//
// All decisions are made on the device, so nothing waits for the host. The threshold of the next time lies below the
// k-th magnitude by a margin that adapts.
#pragma once
#include "kernels/device/compact.h"
#include "kernels/element.h"
#include "kernels/topk.h"

namespace pycoll::kernels::device {

inline constexpr uint32_t kBins = 2048, kSamples = 65536;

// What stays between the selections of one array; zero before the first.
struct TopkKept {
  uint32_t floor;   // least size of a candidate; 0: not known
  uint32_t margin;  // of the floor below the k-th size
};

// Of one selection; zero before it.
struct TopkWork {
  uint32_t candidates;      // elements that reached the floor, with room or without
  uint32_t from_array;      // 1: the candidates did not do
  uint32_t known;           // 1: the rule is found
  uint32_t prefix, wanted;  // the upper bits of the k-th size, and how many have them or are yet to be found
  Rule rule;
  uint32_t next[2];     // tiles of collect and emit
  uint32_t arrived[4];  // blocks of estimate and refine
  uint32_t bins[4][kBins];
};

struct TopkJob {
  Floats in, residual;  // residual.data may be null
  uint32_t k;           // at most the count
  Entries out;          // k
  Entries candidates;
  uint32_t room;  // for candidates
  TopkKept* kept;
  TopkWork* work;
  uint64_t* status;  // two for each tile of the array, zero before

  PYCOLL_DEVICE uint32_t tiles() const { return uint32_t((in.count + kTile - 1) / kTile); }
  PYCOLL_DEVICE uint32_t collected() const { return work->candidates < room ? work->candidates : room; }
};

PYCOLL_DEVICE uint32_t topk_size(float x) {
  return as<uint32_t>(x) & 0x7fffffffu;
}

// Shared memory of histogram.
struct Histogram {
  uint32_t bin[kBins];
};

// Adds to `bins` how many of the values have each digit: bits `shift` and up of the size, where those above are
// `prefix`.
template <class C, class Value>
PYCOLL_DEVICE void histogram(C& on, uint32_t* bins, uint64_t count, uint32_t prefix, uint32_t shift, Value value) {
  Histogram& local = on.template shared<Histogram>();
  const uint32_t digits = shift == 20 ? kBins : kBins / 2;
  for (uint32_t d = on.thread(); d < kBins; d += kThreads) local.bin[d] = 0;
  on.sync();
  const uint64_t stride = uint64_t(on.blocks()) * kThreads;
  for (uint64_t i = uint64_t(on.block()) * kThreads + on.thread(); i < count; i += stride) {
    const uint32_t size = topk_size(value(i));
    if (size / digits >> shift == prefix) on.add(&local.bin[(size >> shift) % digits], 1);
  }
  on.sync();
  for (uint32_t d = on.thread(); d < digits; d += kThreads)
    if (local.bin[d]) on.add(bins + d, local.bin[d]);
}

// Shared memory of pick.
struct Picked {
  uint32_t digit, above;
};

// By one block: the digit of the `wanted`-th largest value, and how many have a larger one.
template <class C>
PYCOLL_DEVICE Picked pick(C& on, uint32_t* bins, uint32_t wanted) {
  constexpr uint32_t each = kBins / kThreads;
  Picked& picked = on.template shared<Picked>();
  uint32_t own = 0;
  const uint32_t top = kBins - 1 - on.thread() * each;
  for (uint32_t d = 0; d < each; ++d) own += on.add(bins + (top - d), 0);
  uint32_t above = scan_block(on, own) - own;
  if (above < wanted && wanted <= above + own) {
    uint32_t digit = top;
    for (uint32_t count; above + (count = on.add(bins + digit, 0)) < wanted; --digit) above += count;
    picked = {digit, above};
  }
  on.sync();
  return picked;
}

// `sampled` is how far down in a sample of `samples` the floor is to lie.
template <class C>
PYCOLL_DEVICE void estimate(C& on, const TopkJob& job, uint32_t samples, uint32_t sampled) {
  if (job.kept->floor) return;
  const uint64_t stride = job.in.count / samples;
  histogram(on, job.work->bins[3], samples, 0, 20, [&](uint64_t i) {
    const float x = job.in.data[i * stride];
    return job.residual.data ? canonical(x + job.residual.data[i * stride]) : x;
  });
  if (!last_block(on, &job.work->arrived[3])) return;
  const Picked picked = pick(on, job.work->bins[3], sampled);
  if (on.thread() == 0) {
    job.kept->floor = picked.digit ? picked.digit << 20 : 1;
    job.kept->margin = 1 << 18;
  }
}

// Writes those of this thread's elements that the rule wants and `out` has room for, and returns their bits.
// `index(r, c)` is an element's index. `total` becomes what this tile and all before it have.
template <class C, class Index>
PYCOLL_DEVICE void write_wanted(C& on, uint64_t* status, uint32_t tile, uint64_t count, Rule rule,
                                const float (&x)[kRows][kPack], Entries out, uint32_t room, Index index,
                                uint32_t (&taken)[kRows], Counts& total) {
  const uint64_t first = uint64_t(tile) * kTile + warp(on) * kSpan + lane(on) * kPack;
  uint32_t certain[kRows] = {}, ties[kRows] = {};
  PYCOLL_UNROLL
  for (uint32_t r = 0; r < kRows; ++r) {
    PYCOLL_UNROLL
    for (uint32_t c = 0; c < kPack; ++c) {
      const bool there = first + r * kRow + c < count;
      const uint32_t size = topk_size(x[r][c]);
      certain[r] |= uint32_t(there && size > rule.above) << c;
      ties[r] |= uint32_t(there && rule.ties && size == rule.above) << c;
    }
  }
  Counts before[kRows];
  total = place_rows(on, status, tile, certain, ties, before);
  PYCOLL_UNROLL
  for (uint32_t r = 0; r < kRows; ++r) {
    taken[r] = 0;
    PYCOLL_UNROLL
    for (uint32_t c = 0; c < kPack; ++c) {
      const bool is_certain = certain[r] >> c & 1u, is_tie = ties[r] >> c & 1u;
      const uint64_t place = rule.places(before[r]);
      if ((is_certain || (is_tie && before[r].ties < rule.ties)) && place < room) {
        out.index[place] = index(r, c);
        out.value[place] = x[r][c];
        taken[r] |= 1u << c;
      }
      before[r] = before[r] + Counts{is_certain, is_tie};
    }
  }
}

// What is to be done about this many candidates. By one thread.
PYCOLL_DEVICE void decide(const TopkJob& job, uint32_t candidates) {
  TopkWork& work = *job.work;
  const uint32_t floor = job.kept->floor;
  work.candidates = candidates;
  work.wanted = job.k;
  work.from_array = candidates < job.k || candidates > job.room;
  if (candidates == job.k && !work.from_array) {
    work.known = 1, work.rule = {floor - 1, 0};
  } else if (candidates < job.k && floor == 1) {  // they are all that is not zero
    work.known = 1, work.rule = {0, job.k - candidates};
  }
}

template <class C>
PYCOLL_DEVICE void collect(C& on, const TopkJob& job) {
  const Rule rule{job.k ? job.kept->floor - 1 : ~0u, 0};
  for (uint32_t tile; (tile = next_tile(on, &job.work->next[0])) < job.tiles();) {
    const uint64_t first = uint64_t(tile) * kTile + warp(on) * kSpan + lane(on) * kPack;
    float x[kRows][kPack];
    PYCOLL_UNROLL
    for (uint32_t r = 0; r < kRows; ++r) job.in.load(first + r * kRow, x[r]);
    PYCOLL_UNROLL
    for (uint32_t r = 0; r < kRows; ++r) {
      if (!job.residual.data) break;
      float lost[kPack];
      job.residual.load(first + r * kRow, lost);
      PYCOLL_UNROLL
      for (uint32_t c = 0; c < kPack; ++c) x[r][c] = canonical(x[r][c] + lost[c]);
    }
    uint32_t taken[kRows];
    Counts total;
    write_wanted(
        on, job.status, tile, job.in.count, rule, x, job.candidates, job.room,
        [&](uint32_t r, uint32_t c) { return uint32_t(first + r * kRow + c); }, taken, total);
    PYCOLL_UNROLL
    for (uint32_t r = 0; r < kRows; ++r) {
      if (!job.residual.data) break;
      PYCOLL_UNROLL
      for (uint32_t c = 0; c < kPack; ++c) x[r][c] = taken[r] >> c & 1u ? 0 : x[r][c];
      job.residual.store(first + r * kRow, x[r]);
    }
    if (tile == job.tiles() - 1 && on.thread() == 0) decide(job, total.certain);
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
  const uint32_t shift = 20 - 10 * level, prefix = work.prefix, wanted = work.wanted;
  histogram(on, work.bins[level], work.from_array ? job.in.count : work.candidates, prefix, shift,
            [&](uint64_t i) { return values[i]; });
  if (!last_block(on, &work.arrived[level])) return;
  const Picked picked = pick(on, work.bins[level], wanted);
  if (on.thread() != 0) return;
  work.prefix = prefix << 10 | picked.digit;
  work.wanted = wanted - picked.above;
  if (level == 2) work.rule = {work.prefix, work.wanted};
}

// Where candidates are looked for next time. By one thread.
PYCOLL_DEVICE void keep(const TopkJob& job) {
  TopkKept& kept = *job.kept;
  const uint32_t candidates = job.work->candidates, last = job.work->rule.above;
  if (candidates < job.k) {
    kept.margin = kept.margin < 1u << 22 ? kept.margin * 4 : kept.margin;
  } else if (candidates - job.k > job.k / 2) {
    kept.margin = kept.margin / 2 + 1;
  }
  kept.floor = last > kept.margin ? last - kept.margin : 1;
}

template <class C>
PYCOLL_DEVICE void emit(C& on, const TopkJob& job) {
  const TopkWork& work = *job.work;
  const bool from_array = work.from_array;
  const Floats array = job.residual.data ? job.residual : job.in;
  const Floats values = from_array ? array : Floats{job.candidates.value, work.candidates};
  const uint32_t tiles = uint32_t((values.count + kTile - 1) / kTile);
  if (on.block() == 0 && on.thread() == 0) keep(job);
  for (uint32_t tile; (tile = next_tile(on, &job.work->next[1])) < tiles;) {
    const uint64_t first = uint64_t(tile) * kTile + warp(on) * kSpan + lane(on) * kPack;
    const auto index = [&](uint32_t r, uint32_t c) {
      const uint64_t i = first + r * kRow + c;
      return from_array ? uint32_t(i) : job.candidates.index[i];
    };
    float x[kRows][kPack];
    PYCOLL_UNROLL
    for (uint32_t r = 0; r < kRows; ++r) values.load(first + r * kRow, x[r]);
    uint32_t taken[kRows];
    Counts total;
    write_wanted(on, job.status + job.tiles(), tile, values.count, work.rule, x, job.out, job.k, index, taken, total);
    if (!job.residual.data) continue;
    PYCOLL_UNROLL
    for (uint32_t r = 0; r < kRows; ++r) {
      PYCOLL_UNROLL
      for (uint32_t c = 0; c < kPack; ++c) {
        const bool there = first + r * kRow + c < values.count, wanted = taken[r] >> c & 1u;
        if (there && wanted == from_array) job.residual.data[index(r, c)] = from_array ? 0 : x[r][c];
      }
    }
  }
}

}  // namespace pycoll::kernels::device
