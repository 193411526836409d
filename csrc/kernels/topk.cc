// One pass, in which elements above a bound that is a little too low become candidates; then an exact choice among
// them.
//
// The bound comes from a sample. If it was too low and candidates fill their room, all but the k largest are dropped
// and the bound rises to the least of these: what comes later and is not above it cannot be chosen. If it was too high
// and fewer than k elements were above, a second pass begins with no bound at all. Whatever the input, the work is at
// most that of count / k exact choices among 2k: linear.
#include "kernels/topk.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>

#include "kernels/element.h"
#include "kernels/simd.h"
#include "kernels/topk_sample.h"
#include "kernels/topk_table.h"

namespace pycoll::kernels {
namespace {

constexpr uint32_t kInfinite = 0x80000000u;  // above every magnitude

const TopkTable& table() {
  static const std::array<const TopkTable*, 3> tables = {scalar_topk_table(), avx2_topk_table(), avx512_topk_table()};
  return pick(tables);
}

uint32_t magnitude(float x) {
  return as<uint32_t>(x) & 0x7fffffffu;
}

// The k-th largest magnitude, and how many equal to it are among the k largest.
struct Cut {
  uint32_t threshold;
  size_t ties;
};

// 1 <= k <= entries; no magnitude is below `least`. The threshold may be too low, by less than `slack`. Histograms of
// ever narrower bins around the k-th: first half an octave from `least`, or everything if it is 0.
Cut cut_at(const float* value, size_t entries, size_t k, uint32_t least, uint32_t slack) {
  constexpr unsigned digits = 11, bins = 1u << digits;
  uint32_t low = least, span = kInfinite - least;
  unsigned shift = least ? 22 - digits : 31 - digits;
  for (;;) {
    std::array<uint32_t, bins> histogram{};
    for (size_t i = 0; i < entries; ++i)
      if (const uint32_t distance = magnitude(value[i]) - low; distance < span)
        ++histogram[std::min(distance >> shift, bins - 1)];
    uint32_t bin = bins - 1;
    for (; histogram[bin] < k; --bin) k -= histogram[bin];
    const bool open = bin == bins - 1 && (span - 1) >> shift >= bins;  // the last bin holds all that is above, too
    low += bin << shift;
    span = open ? span - (bin << shift) : 1u << shift;
    if (span <= slack) return {low, k};
    const auto width = unsigned(std::bit_width(span - 1));
    shift = width > digits ? width - digits : 0;
  }
}

// Drops all but the k largest, which keep their order and go to `to`; puts what is dropped back.
Cut keep_largest(Candidates& all, size_t k, uint32_t least, float* residual, Entries to) {
  constexpr size_t block = 1024;
  const Cut cut = cut_at(all.value, all.entries, k, least, 1);
  size_t kept = 0, ties = cut.ties;
  for (size_t begin = 0; begin < all.entries; begin += block) {
    uint32_t dropped_index[block];
    float dropped_value[block];
    size_t dropped = 0;
    for (size_t i = begin, end = std::min(all.entries, begin + block); i < end; ++i) {  // which are kept is a coin toss
      const uint32_t index = all.index[i], size = magnitude(all.value[i]);
      const float value = all.value[i];
      const bool tie = (size == cut.threshold) & (ties > 0), keep = (size > cut.threshold) | tie;
      dropped_index[dropped] = index;
      dropped_value[dropped] = value;
      dropped += !keep;
      if (kept < k) {
        to.index[kept] = index;
        to.value[kept] = value;
      }
      kept += keep;
      ties -= tie;
    }
    for (size_t i = 0; residual && i < dropped; ++i) residual[dropped_index[i]] = dropped_value[i];
  }
  assert(kept == k);
  all.entries = kept;
  return cut;
}

// Of the sample; 0 if all reach it.
uint32_t estimate(const float* in, const float* residual, const TopkSample& sample, Scratch& scratch) {
  if (sample.rank == 0) return 0;
  auto* const values = reinterpret_cast<float*>(scratch.get(sample.count * sizeof(float)).data());
  for (size_t first = 0; first < sample.count; first += TopkSample::kClump) {
    const size_t from = sample[first];
    for (size_t lane = 0; lane < TopkSample::kClump; ++lane)
      values[first + lane] = residual ? canonical(in[from + lane] + residual[from + lane]) : in[from + lane];
  }
  const uint32_t threshold = cut_at(values, sample.count, sample.rank, 0, 1u << 12).threshold;
  assert(threshold % (1u << TopkSample::kTruncated) == 0);
  return threshold;
}

// All that reach `least`, but for those that cannot be among the k largest. Returns what they all reach.
uint32_t collect(Collect c, size_t k, uint32_t least, Candidates& all) {
  c.above = int32_t(int64_t(least) - 1);
  for (;;) {
    c.begin = table().collect(c, all);
    if (c.begin == c.end) return least;
    least = keep_largest(all, k, least, c.residual, {all.index, all.value}).threshold;
    c.above = int32_t(least);
  }
}

// At least `fewest` and at most k of the largest.
size_t select(const float* in, float* residual, size_t count, size_t k, size_t fewest, TopkState& state, Entries out,
              Scratch& scratch) {
  constexpr size_t margin = 4096;
  const size_t room = k < count / 2 ? std::min(count, 2 * k + margin) : count;
  uint32_t least = k == 0 ? kInfinite : estimate(in, residual, TopkSample(count, fewest), scratch);
  const size_t bytes = (room + Candidates::kSlack) * sizeof(float);
  std::byte* const memory = scratch.get(2 * bytes).data();
  Candidates all{reinterpret_cast<uint32_t*>(memory), reinterpret_cast<float*>(memory + bytes), 0, room};
  least = collect({in, residual, 0, count, 0}, k, least, all);
  const bool again = all.entries < fewest;
  if (again) {
    for (size_t i = 0; residual && i < all.entries; ++i) residual[all.index[i]] = all.value[i];
    all.entries = 0;
    least = collect({residual ? residual : in, nullptr, 0, count, 0}, k, 0, all);
  }
  if (all.entries > k) {
    least = keep_largest(all, k, least, again ? nullptr : residual, out).threshold;
  } else {
    std::copy_n(all.index, all.entries, out.index);
    std::copy_n(all.value, all.entries, out.value);
  }
  for (size_t i = 0; again && residual && i < all.entries; ++i) residual[out.index[i]] = 0;
  state.threshold = least;
  return all.entries;
}

}  // namespace

size_t select_topk(const float* in, float* residual, size_t count, size_t k, TopkState& state, Entries out,
                   Scratch& scratch) {
  k = std::min(k, count);
  return select(in, residual, count, k, k, state, out, scratch);
}

size_t select_near(const float* in, float* residual, size_t count, size_t k, TopkState& state, Entries out,
                   Scratch& scratch) {
  k = std::min(k, count);
  return select(in, residual, count, k, k - k / 4, state, out, scratch);
}

}  // namespace pycoll::kernels
