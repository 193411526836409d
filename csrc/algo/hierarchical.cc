// Hierarchical allreduce: reduce-scatter inside the node, allreduce of each chunk between nodes, allgather inside the
// node. All links between nodes are used at once, each for 1/lanes of the bytes. Long arrays go in blocks: as one is on
// its way between nodes, the one before is gathered and the next one reduced inside them.
//
// Cost of a node of p ranks, N nodes, L lanes (L <= every p), chunk c_i = Partition{count, L}[i], 0 for i >= L, for
// each of ceil(S / (L 2 MiB)) equal blocks:
//   the rounds of ring_reduce_scatter on p, ring_allreduce on N, ring_allgather on p, one after the other
//   2S - c_r - c_(r+1) bytes sent inside the node by its rank r; by lane r also those of a ring_allreduce of c_r on N
// Sums run in ring order inside the node, then in ring order between nodes.
#include <algorithm>
#include <optional>

#include "algo/collectives.h"
#include "algo/local.h"
#include "pattern/hierarchy.h"

namespace pycoll::algo {
namespace {

constexpr size_t kBlock = 2 << 20;  // for each lane: long enough to fill the link, short enough to overlap

}  // namespace

int lanes_of(const std::vector<int>& node_of) {
  return pattern::Hierarchy{node_of}.lanes();
}

std::vector<int> lane_members(const std::vector<int>& node_of, int lane) {
  return pattern::Hierarchy{node_of}.across(lane);
}

void hierarchical_allreduce(Levels& levels, ConstBuffer in, Buffer out, Reduction reduction, Scratch& scratch) {
  const Partition blocks{in.count, std::max<size_t>(1, segments_of(in.count, in.dtype, kBlock * size_t(levels.lanes)))};
  const auto layout_of = [&](size_t b) {
    return pattern::lane_layout(blocks[b].count, levels.node.size(), levels.lanes);
  };
  const auto own = [&](size_t b) { return out[blocks[b]][layout_of(b)[size_t(levels.node.rank())]]; };
  // The sum over the node is not complete yet, so the divisor waits for the step across.
  const auto reduce = [&](size_t b) {
    ring_reduce_scatter(levels.node, in[blocks[b]], own(b), layout_of(b), {reduction.op}, scratch);
  };
  const auto gather = [&](size_t b) { ring_allgather(levels.node, out[blocks[b]], layout_of(b)); };

  // Before block b crosses, blocks up to b are reduced inside the nodes, and those before b - 1 are complete
  // everywhere.
  Scratch on_the_way;  // while the node's steps use the other
  reduce(0);
  for (size_t b = 0; b < blocks.parts; ++b) {
    std::optional<RingAllreduce> crossing;
    if (levels.across) crossing.emplace(*levels.across, own(b), own(b), reduction, on_the_way);
    if (b + 1 < blocks.parts) reduce(b + 1);
    if (b > 0) gather(b - 1);
    if (crossing) crossing->finish();
  }
  gather(blocks.parts - 1);
}

}  // namespace pycoll::algo
