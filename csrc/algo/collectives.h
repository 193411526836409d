// The algorithms: each a plain loop over a pure pattern, right for any number of ranks and any count.
//
// Rules common to all:
//   every rank calls with the same arguments but for data; a Layout has one range per rank, in order, without gaps;
//   `in` may be `out` (in place) where both are given with the same count; they may not overlap otherwise;
//   ranks end with the same bits. Where a reduction's order is not rank order the file says so.
//   avg is sum divided by net.size() on the owner of a chunk before it is passed on. premul_sum is summed: the caller
//   scaled. Halves: the caller widened them to f32 first, but for the algorithms that round once by themselves
//   (rounds_once()).
#pragma once
#include <memory>

#include "core/buffer.h"
#include "core/op.h"
#include "core/partition.h"
#include "core/scratch.h"
#include "core/signature.h"
#include "transport/net.h"

namespace pycoll::algo {

struct Reduction {
  ReduceOp op;
  int divisor = 1;  // avg: the number of contributions, else 1. Applied once, by whoever completes an element
};

// ring.cc
void ring_reduce_scatter(Net& net, ConstBuffer in, Buffer out, const Layout& layout, Reduction reduction,
                         Scratch& scratch);
void ring_allgather(Net& net, Buffer x, const Layout& layout);
void ring_allreduce(Net& net, ConstBuffer in, Buffer out, Reduction reduction, Scratch& scratch);
// The same in two parts: its first segments travel while the caller does other things, with another Scratch.
class RingAllreduce {
 public:
  RingAllreduce(Net& net, ConstBuffer in, Buffer out, Reduction reduction, Scratch& scratch);
  ~RingAllreduce();
  void finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// circulant.cc
void circulant_reduce_scatter(Net& net, ConstBuffer in, Buffer out, const Layout& layout, Reduction reduction,
                              Scratch& scratch);
void circulant_allgather(Net& net, Buffer x, const Layout& layout, Scratch& scratch);
void circulant_allreduce(Net& net, ConstBuffer in, Buffer out, Reduction reduction, Scratch& scratch);

// halving.cc
void halving_allreduce(Net& net, ConstBuffer in, Buffer out, Reduction reduction, Scratch& scratch);

// doubling.cc
void doubling_allreduce(Net& net, ConstBuffer in, Buffer out, Reduction reduction, Scratch& scratch);

// tree.cc
void tree_allreduce(Net& net, ConstBuffer in, Buffer out, Reduction reduction, Scratch& scratch);
void tree_reduce(Net& net, ConstBuffer in, Buffer out, int root, Reduction reduction,
                 Scratch& scratch);  // out: root only
void tree_broadcast(Net& net, Buffer x, int root);
void tree_gather(Net& net, ConstBuffer in, Buffer out, int root, const Layout& layout,
                 Scratch& scratch);  // out: root only
void tree_scatter(Net& net, ConstBuffer in, Buffer out, int root, const Layout& layout,
                  Scratch& scratch);  // in: root only

// pairwise.cc: every rank sends each chunk straight to its owner, who reduces in rank order and rounds once.
void pairwise_reduce_scatter(Net& net, ConstBuffer in, Buffer out, const Layout& layout, Reduction reduction,
                             Scratch& scratch);
void pairwise_allgather(Net& net, Buffer x, const Layout& layout);
void pairwise_allreduce(Net& net, ConstBuffer in, Buffer out, Reduction reduction, Scratch& scratch);
void pairwise_alltoall(Net& net, ConstBuffer in, const Layout& sent, Buffer out, const Layout& received);
void pairwise_gather(Net& net, ConstBuffer in, Buffer out, int root, const Layout& layout);   // out: root only
void pairwise_scatter(Net& net, ConstBuffer in, Buffer out, int root, const Layout& layout);  // in: root only

// direct.cc: net.shared() is not null. Each rank stages its input block by block and reads its peers' stages; sums run
// in rank order and are rounded once.
void direct_allreduce(Net& net, ConstBuffer in, Buffer out, Reduction reduction);
void direct_reduce_scatter(Net& net, ConstBuffer in, Buffer out, const Layout& layout, Reduction reduction);
void direct_allgather(Net& net, ConstBuffer in, Buffer out, const Layout& layout);
void direct_broadcast(Net& net, Buffer x, int root);
void direct_reduce(Net& net, ConstBuffer in, Buffer out, int root, Reduction reduction);    // out: root only
void direct_gather(Net& net, ConstBuffer in, Buffer out, int root, const Layout& layout);   // out: root only
void direct_scatter(Net& net, ConstBuffer in, Buffer out, int root, const Layout& layout);  // in: root only
void direct_alltoall(Net& net, ConstBuffer in, const Layout& sent, Buffer out, const Layout& received);

// symmetric.cc: every rank's arrays are in memory that all can reach: in[r] and out[r] are rank r's (out[r] may be null
// where only `in` is reachable). All ranks have entered: inputs are ready.
struct Places {
  std::vector<const std::byte*> in;
  std::vector<std::byte*> out;
};
void symmetric_allreduce(Net& net, const Places& places, ConstBuffer in, Reduction reduction);
void symmetric_reduce_scatter(Net& net, const Places& places, Buffer out, const Layout& layout, Reduction reduction);
void symmetric_reduce(Net& net, const Places& places, Buffer out, int root, Reduction reduction);  // out: root only
void symmetric_allgather(Net& net, const Places& places, Buffer out, const Layout& layout);
void symmetric_gather(Net& net, const Places& places, Buffer out, int root, const Layout& layout);  // out: root only
void symmetric_scatter(Net& net, const Places& places, Buffer out, int root, const Layout& layout);
void symmetric_alltoall(Net& net, const Places& places, Buffer out, const Layout& layout);  // even counts
void symmetric_broadcast(Net& net, const Places& places, Buffer x, int root);

// single_copy.cc: as above for private memory, which ranks read through SharedMemory::read(); `places` holds addresses
// that mean something to their owner alone.
void single_copy_allreduce(Net& net, const Places& places, ConstBuffer in, Buffer out, Reduction reduction,
                           Scratch& scratch);
void single_copy_reduce_scatter(Net& net, const Places& places, ConstBuffer in, Buffer out, const Layout& layout,
                                Reduction reduction, Scratch& scratch);
void single_copy_allgather(Net& net, const Places& places, ConstBuffer in, Buffer out, const Layout& layout);
void single_copy_broadcast(Net& net, const Places& places, Buffer x, int root);

// dense.cc: allreduce by the algorithm named, or one that suits the count if none is. Not direct, not hierarchical.
void dense_allreduce(Net& net, Algo algo, ConstBuffer in, Buffer out, Reduction reduction, Scratch& scratch);

// dissemination.cc
void dissemination_barrier(Net& net);
// True on every rank if all ranks' bytes are equal, false on every rank if not. At most 64 bytes, the same number on
// all.
bool dissemination_equal(Net& net, ConstBytes mine);
// Each rank's `bytes` bytes, at x + rank * bytes, reach all: ceil(log2 P) rounds, any P.
void dissemination_allgather(Net& net, Bytes x, size_t bytes, Scratch& scratch);

// hierarchical.cc: inside the node, between nodes, inside the node. `lanes` ranks of each node share the links between
// nodes; rank i < lanes of every node is in the same `across`. across is null on other ranks.
struct Levels {
  Net node;
  Net* across;
  int lanes;
};
// From the node of each rank: how many lanes there are, and who is in one.
int lanes_of(const std::vector<int>& node_of);
std::vector<int> lane_members(const std::vector<int>& node_of, int lane);
void hierarchical_allreduce(Levels& levels, ConstBuffer in, Buffer out, Reduction reduction, Scratch& scratch);

}  // namespace pycoll::algo
