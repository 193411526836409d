// Hierarchical allreduce: reduce-scatter inside the node, allreduce of each chunk between nodes, allgather inside the
// node. All links between nodes are used at once, each for 1/lanes of the bytes.
//
// Cost of a node of p ranks, N nodes, L lanes (L <= every p), chunk c_i = Partition{count, L}[i], 0 for i >= L:
//   the rounds of ring_reduce_scatter on p, ring_allreduce on N, ring_allgather on p, one after the other
//   2S - c_r - c_(r+1) bytes sent inside the node by its rank r; by lane r also those of a ring_allreduce of c_r on N
// Sums run in ring order inside the node, then in ring order between nodes.
#include "algo/collectives.h"
#include "pattern/hierarchy.h"

namespace pycoll::algo {

int lanes_of(const std::vector<int>& node_of) {
  return pattern::Hierarchy{node_of}.lanes();
}

std::vector<int> lane_members(const std::vector<int>& node_of, int lane) {
  return pattern::Hierarchy{node_of}.across(lane);
}

void hierarchical_allreduce(Levels& levels, ConstBuffer in, Buffer out, Reduction reduction, Scratch& scratch) {
  const Layout layout = pattern::lane_layout(in.count, levels.node.size(), levels.lanes);
  const Buffer own = out[layout[size_t(levels.node.rank())]];
  // The sum over the node is not complete yet, so the divisor waits for the step across.
  ring_reduce_scatter(levels.node, in, own, layout, {reduction.op}, scratch);
  if (levels.across) ring_allreduce(*levels.across, own, own, reduction, scratch);
  ring_allgather(levels.node, out, layout);
}

}  // namespace pycoll::algo
