// Dissemination: the fewest rounds for any number of ranks; for barriers and for a few bytes a rank.
//
// Cost of P ranks:
//   barrier    ceil(log2 P) rounds   0 bytes
//   equal      ceil(log2 P) rounds   ceil(log2 P) (b+1) bytes sent a rank, b of them compared
//   allgather  ceil(log2 P) rounds   (P-1) `bytes` bytes sent a rank
#include <algorithm>
#include <array>
#include <cstring>

#include "algo/collectives.h"
#include "algo/local.h"
#include "core/error.h"
#include "pattern/dissemination.h"

namespace pycoll::algo {

void dissemination_barrier(Net& net) {
  const pattern::Dissemination graph{net.rank(), net.size()};
  // Before step t, this rank knows that the 2^t ranks up to and with itself are in the barrier.
  for (int step = 0; step < graph.steps(); ++step) net.exchange(graph.above(step), {}, graph.below(step), {});
}

bool dissemination_equal(Net& net, ConstBytes mine) {
  constexpr size_t kMost = 64;
  PYCOLL_CHECK(mine.size() <= kMost, "dissemination_equal: got ", mine.size(), " bytes, wanted at most ", kMost);
  const pattern::Dissemination graph{net.rank(), net.size()};
  std::array<std::byte, kMost + 1> out{}, in{};
  std::copy(mine.begin(), mine.end(), out.begin() + 1);
  const Bytes sent{out.data(), mine.size() + 1}, received{in.data(), mine.size() + 1};
  // Before step t, the first byte is 1 if the 2^t ranks up to and with this one do not all agree.
  for (int step = 0; step < graph.steps(); ++step) {
    net.exchange(graph.above(step), sent, graph.below(step), received);
    const bool same = std::equal(mine.begin(), mine.end(), in.begin() + 1);
    if (in[0] != std::byte(0) || !same) out[0] = std::byte(1);
  }
  return out[0] == std::byte(0);
}

void dissemination_allgather(Net& net, Bytes x, size_t bytes, Scratch& scratch) {
  const pattern::Dissemination graph{net.rank(), net.size()};
  if (graph.size == 1 || bytes == 0) return;
  const size_t before = size_t(graph.rank) * bytes, after = size_t(graph.size) * bytes - before;
  // Blocks counted from the own one up, around the end.
  const Bytes turned = scratch.get(before + after);
  std::memcpy(turned.data(), x.data() + before, bytes);

  // Before step t, this rank holds blocks [0, 2^t).
  for (int step = 0; step < graph.steps(); ++step) {
    const size_t held = size_t(graph.distance(step)) * bytes, moved = size_t(graph.blocks(step)) * bytes;
    net.exchange(graph.below(step), turned.first(moved), graph.above(step), turned.subspan(held, moved));
  }
  std::memcpy(x.data() + before, turned.data(), after);
  if (before) std::memcpy(x.data(), turned.data() + after, before);
}

}  // namespace pycoll::algo
