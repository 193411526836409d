// Division of a count into parts: fair, in order, nothing refused.
#pragma once
#include <algorithm>
#include <cstddef>
#include <vector>

namespace pycoll {

struct Range {
  size_t begin, count;
  constexpr size_t end() const { return begin + count; }
  bool operator==(const Range&) const = default;
};

// `count` elements in `parts` ranges whose counts differ by at most one, larger ones first.
struct Partition {
  size_t count, parts;
  constexpr Range operator[](size_t i) const {
    const size_t base = count / parts, extra = count % parts;
    return {i * base + std::min(i, extra), base + (i < extra ? 1 : 0)};
  }
};

// Segment `index` of at most `segment` elements of a range; empty past its end.
constexpr Range segment_of(Range range, size_t index, size_t segment) {
  const size_t begin = std::min(index * segment, range.count);
  return {range.begin + begin, std::min(segment, range.count - begin)};
}

// One chunk per rank: what reduce_scatter leaves and allgather collects.
using Layout = std::vector<Range>;

inline Layout layout_of(Partition partition) {
  Layout layout(partition.parts);
  for (size_t i = 0; i < partition.parts; ++i) layout[i] = partition[i];
  return layout;
}

inline Layout layout_of(const std::vector<size_t>& counts) {
  Layout layout;
  size_t begin = 0;
  for (const size_t count : counts) {
    layout.push_back({begin, count});
    begin += count;
  }
  return layout;
}

inline size_t largest_of(const Layout& layout) {
  size_t most = 0;
  for (const Range& range : layout) most = std::max(most, range.count);
  return most;
}

inline size_t total_of(const Layout& layout) {
  return layout.empty() ? 0 : layout.back().end();
}

}  // namespace pycoll
