// Direct collectives over private memory that ranks may read with the kernel's help: one copy instead of two, no stage.
// Entering ranks have met, so inputs are ready; a barrier at the end keeps everybody's memory still until all have read
// it.
//
// Cost for S bytes, chunk c on rank r being Partition(S, P)[r]: allreduce 2 barriers, c(P-1) + S - c bytes read;
// reduce_scatter 1 barrier, c(P-1); allgather and broadcast 1 barrier, what they end with, less their own. Sums run in
// rank order and are rounded once.
#include <cstring>

#include "algo/collectives.h"
#include "kernels/reduce.h"

namespace pycoll::algo {
namespace {

constexpr size_t kSegmentBytes =
    256 << 10;  // of each peer's input at a time: all of them stay in the second-level cache

void read(Net& net, int peer, Bytes to, const std::byte* from) {
  if (to.empty()) return;
  net.shared()->note_access(peer, to.size());
  net.shared()->read(peer, to, reinterpret_cast<uint64_t>(from));
}

// out = the sum over ranks of elements `range` of their inputs.
void reduce_range(Net& net, const Places& places, ConstBuffer in, Buffer out, Range range, Reduction reduction,
                  Scratch& scratch) {
  const size_t element = size_of(in.dtype), segment = kSegmentBytes / element;
  const Bytes landing = scratch.get(kSegmentBytes * size_t(net.size()));
  std::vector<const std::byte*> inputs(size_t(net.size()));
  for (size_t s = 0; s * segment < range.count; ++s) {
    const Range now = segment_of(range, s, segment);
    for (int peer = 0; peer < net.size(); ++peer) {
      if (peer == net.rank()) {
        inputs[size_t(peer)] = in.at(now.begin);
        continue;
      }
      const Bytes to = landing.subspan(size_t(peer) * kSegmentBytes, now.count * element);
      read(net, peer, to, places.in[size_t(peer)] + now.begin * element);
      inputs[size_t(peer)] = to.data();
    }
    kernels::reduce_all(out[{now.begin - range.begin, now.count}], inputs, reduction.op, reduction.divisor);
  }
}

}  // namespace

void single_copy_allreduce(Net& net, const Places& places, ConstBuffer in, Buffer out, Reduction reduction,
                           Scratch& scratch) {
  const Partition chunks{in.count, size_t(net.size())};
  const auto chunk = [&](int rank) { return chunks[size_t(rank)]; };
  reduce_range(net, places, in, out[chunk(net.rank())], chunk(net.rank()), reduction, scratch);
  net.shared()->barrier(net.deadline());
  for (int hop = 1; hop < net.size(); ++hop) {
    const int peer = (net.rank() + hop) % net.size();
    read(net, peer, out[chunk(peer)].span(), places.out[size_t(peer)] + chunk(peer).begin * size_of(out.dtype));
  }
  net.shared()->barrier(net.deadline());
}

void single_copy_reduce_scatter(Net& net, const Places& places, ConstBuffer in, Buffer out, const Layout& layout,
                                Reduction reduction, Scratch& scratch) {
  reduce_range(net, places, in, out, layout[size_t(net.rank())], reduction, scratch);
  net.shared()->barrier(net.deadline());
}

void single_copy_allgather(Net& net, const Places& places, ConstBuffer in, Buffer out, const Layout& layout) {
  const Buffer own = out[layout[size_t(net.rank())]];
  if (own.count && own.data != in.data) std::memmove(own.data, in.data, own.bytes());
  for (int hop = 1; hop < net.size(); ++hop) {
    const int peer = (net.rank() + hop) % net.size();
    read(net, peer, out[layout[size_t(peer)]].span(), places.in[size_t(peer)]);
  }
  net.shared()->barrier(net.deadline());
}

void single_copy_broadcast(Net& net, const Places& places, Buffer x, int root) {
  if (net.rank() != root) read(net, root, x.span(), places.in[size_t(root)]);
  net.shared()->barrier(net.deadline());
}

}  // namespace pycoll::algo
