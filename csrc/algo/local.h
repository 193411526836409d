// What a rank does by itself: copies, the division of an average, chunks that lie around the end of an array.
#pragma once
#include <array>
#include <cstring>

#include "algo/collectives.h"
#include "core/copy.h"
#include "kernels/reduce.h"

namespace pycoll::algo {

// Nothing where both are the same memory.
inline void copy_into(Buffer dst, ConstBuffer src) {
  assert(dst.count == src.count);
  if (dst.count && dst.data != src.data) std::memmove(dst.data, src.data, src.bytes());
}

// How a rank writes `bytes` bytes of a result that it has not read before: past the caches where all ranks' results do
// not stay in them anyway, since an ordinary store fetches a line from memory before it overwrites it.
inline Stores result_stores(const Net& net, size_t bytes) {
  constexpr size_t kCachedBytes = 16 << 20;  // half of a common third-level cache
  return bytes * size_t(net.size()) >= kCachedBytes ? Stores::streaming : Stores::ordinary;
}

// The last step of a reduction: a divisor of 1 divides nothing.
inline void complete(Buffer sum, int divisor) {
  if (divisor != 1) kernels::divide(sum, divisor);
}

// A reduction of one rank.
inline void alone(ConstBuffer in, Buffer out, Reduction reduction) {
  copy_into(out, in);
  complete(out, reduction.divisor);
}

// Temporary memory for `count` elements, until the next call.
inline Buffer borrow(Scratch& scratch, size_t count, DType dtype) {
  return {scratch.get(count * size_of(dtype)).data(), count, dtype};
}

// Segments of at most `bytes` bytes that `count` elements take.
inline size_t segments_of(size_t count, DType dtype, size_t bytes) {
  return (count * size_of(dtype) + bytes - 1) / bytes;
}

// `count` chunks from chunk `first` on, going around the end: one contiguous range, or two. The second may be empty.
inline std::array<Range, 2> arc_of(const Layout& layout, int first, int count) {
  const size_t begin = size_t(first), end = begin + size_t(count), size = layout.size();
  const auto range = [&](size_t from, size_t to) -> Range {
    if (from == to) return {0, 0};
    return {layout[from].begin, layout[to - 1].end() - layout[from].begin};
  };
  if (end <= size) return {range(begin, end), Range{0, 0}};
  return {range(begin, size), range(0, end - size)};
}
inline size_t count_of(const std::array<Range, 2>& arc) {
  return arc[0].count + arc[1].count;
}

// The arc as one piece: where it lies if it is one already, else copied to `spare`.
inline ConstBuffer packed(ConstBuffer x, const std::array<Range, 2>& arc, Buffer spare) {
  if (arc[1].count == 0) return x[arc[0]];
  const Buffer whole = spare[{0, count_of(arc)}];
  copy_into(whole[{0, arc[0].count}], x[arc[0]]);
  copy_into(whole[{arc[0].count, arc[1].count}], x[arc[1]]);
  return whole;
}

// Where one message for the arc may land, and the copy from there to its place (unpack) if that is not it.
inline Buffer landing(Buffer x, const std::array<Range, 2>& arc, Buffer spare) {
  return arc[1].count == 0 ? x[arc[0]] : spare[{0, count_of(arc)}];
}
inline void unpack(Buffer x, const std::array<Range, 2>& arc, ConstBuffer landed) {
  copy_into(x[arc[0]], landed[{0, arc[0].count}]);
  copy_into(x[arc[1]], landed[{arc[0].count, arc[1].count}]);
}

}  // namespace pycoll::algo
