// The table from (kind, algorithm) to code.
#include "comm/communicator.h"

#include <cstring>

namespace pycoll {
namespace {

// allgather algorithms work in the gathered array; a rank's own chunk has to be there first.
void place_own(const Call& call, int rank) {
  const Buffer own = call.out[call.layout[size_t(rank)]];
  if (own.count && own.data != call.in.data) std::memcpy(own.data, call.in.data, own.bytes());
}

}  // namespace

void Communicator::run_algorithm(const Call& call, Algo chosen, Deadline deadline) {
  if (call.compression.codec) return compressed(call, deadline);
  Net net(*world_, deadline);
  const algo::Reduction reduction = reduction_of(call);
  const ConstBuffer in = call.in;
  const Buffer out = call.out;
  switch (call.kind) {
    case Kind::allreduce:
      switch (chosen) {
        case Algo::direct: return algo::direct_allreduce(net, in, out, reduction);
        case Algo::hierarchical: return hierarchical(call, reduction, deadline);
        default: return algo::dense_allreduce(net, chosen, in, out, reduction, scratch_);
      }
    case Kind::reduce_scatter:
      switch (chosen) {
        case Algo::ring: return algo::ring_reduce_scatter(net, in, out, call.layout, reduction, scratch_);
        case Algo::circulant: return algo::circulant_reduce_scatter(net, in, out, call.layout, reduction, scratch_);
        case Algo::pairwise: return algo::pairwise_reduce_scatter(net, in, out, call.layout, reduction, scratch_);
        default: return algo::direct_reduce_scatter(net, in, out, call.layout, reduction);
      }
    case Kind::allgather:
      if (chosen == Algo::direct) return algo::direct_allgather(net, in, out, call.layout);
      place_own(call, rank());
      switch (chosen) {
        case Algo::ring: return algo::ring_allgather(net, out, call.layout);
        case Algo::circulant: return algo::circulant_allgather(net, out, call.layout, scratch_);
        default: return algo::pairwise_allgather(net, out, call.layout);
      }
    case Kind::broadcast:
      return chosen == Algo::tree ? algo::tree_broadcast(net, out, call.root)
                                  : algo::direct_broadcast(net, out, call.root);
    case Kind::reduce:
      return chosen == Algo::tree ? algo::tree_reduce(net, in, out, call.root, reduction, scratch_)
                                  : algo::direct_reduce(net, in, out, call.root, reduction);
    case Kind::gather:
      switch (chosen) {
        case Algo::tree: return algo::tree_gather(net, in, out, call.root, call.layout, scratch_);
        case Algo::pairwise: return algo::pairwise_gather(net, in, out, call.root, call.layout);
        default: return algo::direct_gather(net, in, out, call.root, call.layout);
      }
    case Kind::scatter:
      switch (chosen) {
        case Algo::tree: return algo::tree_scatter(net, in, out, call.root, call.layout, scratch_);
        case Algo::pairwise: return algo::pairwise_scatter(net, in, out, call.root, call.layout);
        default: return algo::direct_scatter(net, in, out, call.root, call.layout);
      }
    case Kind::alltoall:
      if (call.uneven) check_pairs(net, call);
      return chosen == Algo::direct ? algo::direct_alltoall(net, in, call.layout, out, call.received)
                                    : algo::pairwise_alltoall(net, in, call.layout, out, call.received);
    default:
      if (chosen == Algo::dissemination) algo::dissemination_barrier(net);  // sharing memory, arrival was the barrier
  }
}

// Inside the node over shared memory, between nodes over the world's transport.
void Communicator::hierarchical(const Call& call, algo::Reduction reduction, Deadline deadline) {
  const int lanes = algo::lanes_of(options_.node_of);
  Net world(*world_, deadline);
  std::optional<Net> across;
  if (node_->rank() < lanes) across.emplace(world.among(algo::lane_members(options_.node_of, node_->rank())));
  algo::Levels levels{Net(*node_, deadline), across ? &*across : nullptr, lanes};
  algo::hierarchical_allreduce(levels, call.in, call.out, reduction, scratch_);
}

// What each rank sends to another must be what that one expects. All ranks learn all counts and raise the same
// sentence.
void Communicator::check_pairs(Net& net, const Call& call) {
  const size_t ranks = size_t(size());
  std::vector<uint64_t> counts(ranks * ranks * 2);
  uint64_t* const mine = counts.data() + size_t(rank()) * ranks * 2;
  for (size_t peer = 0; peer < ranks; ++peer) {
    mine[peer] = call.layout[peer].count;
    mine[ranks + peer] = call.received[peer].count;
  }
  algo::dissemination_allgather(net, std::as_writable_bytes(std::span(counts)), ranks * 2 * sizeof(uint64_t), scratch_);
  for (size_t from = 0; from < ranks; ++from) {
    for (size_t to = 0; to < ranks; ++to) {
      const uint64_t sent = counts[from * ranks * 2 + to], wanted = counts[to * ranks * 2 + ranks + from];
      if (sent == wanted) continue;
      node_->board().complete();
      throw MismatchError(
          concat("alltoall: rank ", from, " sends ", sent, " elements to rank ", to, ", which wants ", wanted));
    }
  }
}

}  // namespace pycoll
