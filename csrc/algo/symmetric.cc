// Direct collectives over symmetric buffers: peers' arrays are read, and written, where they are; nothing is staged.
// Entering ranks have met, so inputs are ready; a barrier at the end keeps everybody's memory still until all have read
// it.
//
// Cost for S bytes, chunk c on rank r being Partition(S, P)[r]: 1 barrier; allreduce reads c(P-1) bytes of peers'
// memory and writes as many into it; reduce_scatter reads c(P-1); allgather and broadcast what they end with, less
// their own. Sums run in rank order and are rounded once.
#include <cstring>

#include "algo/collectives.h"
#include "algo/local.h"
#include "kernels/reduce.h"

namespace pycoll::algo {
namespace {

constexpr size_t kSegmentBytes = 8 << 10;  // of a sum on its way to P arrays: stays in the first-level cache

// out = the sum over ranks of elements `range` of their arrays.
void reduce_peers(Net& net, const Places& places, Buffer out, Range range, Reduction reduction) {
  std::vector<const std::byte*> inputs;
  for (int peer = 0; peer < net.size(); ++peer) {
    if (peer != net.rank()) net.shared()->note_access(peer, out.bytes());
    inputs.push_back(places.in[size_t(peer)] + range.begin * size_of(out.dtype));
  }
  kernels::reduce_all(out, inputs, reduction.op, reduction.divisor);
}

// Of two ranks' arrays, elements `range` of both = their sum.
void reduce_pair(Net& net, const Places& places, Range range, DType dtype, Reduction reduction) {
  const size_t at = range.begin * size_of(dtype), rank = size_t(net.rank()), peer = 1 - rank;
  const Buffer sum{places.out[rank] + at, range.count, dtype};
  for (int direction = 0; direction < 2; ++direction) net.shared()->note_access(int(peer), sum.bytes());
  kernels::reduce_pair(sum, places.out[peer] + at, places.in[0] + at, places.in[1] + at, reduction.op,
                       reduction.divisor);
}

// out = `peer`'s array from element `first` on.
void copy_from(Net& net, const Places& places, Buffer out, int peer, size_t first, Stores stores) {
  if (!out.count) return;
  if (peer != net.rank()) net.shared()->note_access(peer, out.bytes());
  const std::byte* from = places.in[size_t(peer)] + first * size_of(out.dtype);
  if (from != out.data) pycoll::copy_into(out.data, from, out.bytes(), stores);
}

// Chunk r of `out` comes from rank r, beginning there at element `first`. Peers come in turn, so that nobody is read by
// all at once.
void collect(Net& net, const Places& places, Buffer out, const Layout& layout, size_t first) {
  for (int hop = 0; hop < net.size(); ++hop) {
    const int peer = (net.rank() + hop) % net.size();
    copy_from(net, places, out[layout[size_t(peer)]], peer, first, result_stores(net, out.bytes()));
  }
}

}  // namespace

void symmetric_allreduce(Net& net, const Places& places, ConstBuffer in, Reduction reduction) {
  // Chunk r is read by rank r alone and written by rank r alone, in every rank's array.
  const Range mine = Partition{in.count, size_t(net.size())}[size_t(net.rank())];
  if (net.size() == 2) {
    reduce_pair(net, places, mine, in.dtype, reduction);
    return net.shared()->barrier(net.deadline());
  }
  const size_t element = size_of(in.dtype), segment = kSegmentBytes / element;
  for (size_t s = 0; s * segment < mine.count; ++s) {
    const Range range = segment_of(mine, s, segment);
    const Buffer sum{places.out[size_t(net.rank())] + range.begin * element, range.count, in.dtype};
    reduce_peers(net, places, sum, range, reduction);
    for (int hop = 1; hop < net.size(); ++hop) {
      const int peer = (net.rank() + hop) % net.size();
      net.shared()->note_access(peer, sum.bytes());
      std::memcpy(places.out[size_t(peer)] + range.begin * element, sum.data, sum.bytes());
    }
  }
  net.shared()->barrier(net.deadline());
}

void symmetric_reduce_scatter(Net& net, const Places& places, Buffer out, const Layout& layout, Reduction reduction) {
  const Range mine = layout[size_t(net.rank())];
  reduce_peers(net, places, out, mine, reduction);
  net.shared()->barrier(net.deadline());
}

void symmetric_reduce(Net& net, const Places& places, Buffer out, int root, Reduction reduction) {
  if (net.rank() == root) reduce_peers(net, places, out, {0, out.count}, reduction);
  net.shared()->barrier(net.deadline());
}

void symmetric_allgather(Net& net, const Places& places, Buffer out, const Layout& layout) {
  collect(net, places, out, layout, 0);
  net.shared()->barrier(net.deadline());
}

void symmetric_gather(Net& net, const Places& places, Buffer out, int root, const Layout& layout) {
  if (net.rank() == root) collect(net, places, out, layout, 0);
  net.shared()->barrier(net.deadline());
}

void symmetric_scatter(Net& net, const Places& places, Buffer out, int root, const Layout& layout) {
  copy_from(net, places, out, root, layout[size_t(net.rank())].begin, result_stores(net, out.bytes()));
  net.shared()->barrier(net.deadline());
}

void symmetric_alltoall(Net& net, const Places& places, Buffer out, const Layout& layout) {
  collect(net, places, out, layout, layout[size_t(net.rank())].begin);
  net.shared()->barrier(net.deadline());
}

void symmetric_broadcast(Net& net, const Places& places, Buffer x, int root) {
  if (net.rank() != root) copy_from(net, places, x, root, 0, result_stores(net, x.bytes()));
  net.shared()->barrier(net.deadline());
}

}  // namespace pycoll::algo
