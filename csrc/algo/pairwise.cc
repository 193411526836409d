// Pairwise: every chunk goes straight from its giver to its taker, once. Owners sum in rank order and round once.
// Everybody starts with the next rank, so that no rank is sent to by all at once, and keeps at most 16 messages each
// way in flight.
//
// Cost of P ranks, S bytes, chunk c_i of rank i, W = min(16, P-1), k and m segments of the largest chunk:
//   reduce_scatter    ceil(k(P-1)/W) rounds          S - c_r bytes sent by rank r
//   allgather         ceil(m(P-1)/W) rounds          (P-1) c_r
//   allreduce         the sum of both                S + (P-2) c_r
//   alltoall          ceil((P-1)/W) rounds           all that is for others
//   gather, scatter   ceil((P-1)/W) rounds at most   gather: c_r, but for the root; scatter: S - c_r by the root
//   k = ceil(largest chunk / s), s = 2 MiB / (P-1) but in [4 KiB, 256 KiB]; m = ceil(largest chunk / 256 KiB). Uneven
//   or empty chunks: these rounds at most.
#include <algorithm>

#include "algo/collectives.h"
#include "algo/local.h"
#include "algo/window.h"
#include "pattern/rotation.h"

namespace pycoll::algo {
namespace {

constexpr size_t kScratch = 4 << 20;  // for two segments of every one of many peers; few peers have more of them
constexpr size_t kSegmentLeast = 4 << 10, kSegmentMost = 256 << 10;
constexpr size_t kWindow = 16;

size_t segment_bytes(size_t peers) {
  return std::clamp(kScratch / 2 / peers, kSegmentLeast, kSegmentMost);
}

size_t window_of(const Net& net) {
  return std::min(kWindow, size_t(net.size() - 1));
}

}  // namespace

void pairwise_reduce_scatter(Net& net, ConstBuffer in, Buffer out, const Layout& layout, Reduction reduction,
                             Scratch& scratch) {
  const int rank = net.rank(), size = net.size();
  const pattern::Rotation rotation{rank, size};
  const Range own = layout[size_t(rank)];
  if (size == 1) return alone(in, out, reduction);
  const size_t peers = size_t(size - 1), most = segment_bytes(peers) / size_of(in.dtype);
  const size_t largest = largest_of(layout), segments = (largest + most - 1) / most;
  if (segments == 0) return;
  const size_t count = (largest + segments - 1) / segments;
  // A segment's slots are used again once the window is past it: that many segments are under way, or being summed.
  const size_t slots = std::min(segments, 1 + (kWindow - 1 + peers - 1) / peers);
  const Buffer landed = borrow(scratch, slots * peers * count, in.dtype);
  const auto slot = [&](size_t segment, size_t peer) {
    return landed[{(segment % slots * peers + peer) * count, segment_of(own, segment, count).count}];
  };

  const auto sum = [&](size_t segment) {
    const Range range = segment_of(own, segment, count);
    if (range.count == 0) return;
    std::vector<const std::byte*> sources(static_cast<size_t>(size));
    sources[size_t(rank)] = in[range].data;
    for (size_t peer = 0; peer < peers; ++peer)
      sources[size_t(rotation.from(1 + int(peer)))] = slot(segment, peer).data;
    kernels::reduce_all(out[{range.begin - own.begin, range.count}], sources, reduction.op, reduction.divisor);
  };

  // Exchange i is of segment i / peers: with rank + 1 + i % peers to send, with the rank as far below to receive.
  // Before it starts, segments are summed whose exchanges are all finished, as others travel.
  Window window(net, kWindow);
  size_t summed = 0;
  for (size_t i = 0; i < segments * peers; ++i) {
    for (const size_t whole = window.make_room() / peers; summed < whole; ++summed) sum(summed);
    const size_t segment = i / peers, peer = i % peers;
    const int to = rotation.to(1 + int(peer)), from = rotation.from(1 + int(peer));
    window.exchange(to, in[segment_of(layout[size_t(to)], segment, count)].span(), from, slot(segment, peer).span());
  }
  window.finish_all();
  for (; summed < segments; ++summed) sum(summed);
}

void pairwise_allgather(Net& net, Buffer x, const Layout& layout) {
  const int rank = net.rank(), size = net.size();
  const pattern::Rotation rotation{rank, size};
  const size_t count = kSegmentMost / size_of(x.dtype);
  Window window(net, kWindow);
  for (size_t segment = 0; segment * count < largest_of(layout); ++segment)
    for (int distance = 1; distance < size; ++distance) {
      window.make_room();
      const int to = rotation.to(distance), from = rotation.from(distance);
      const auto part = [&](int owner) { return x[segment_of(layout[size_t(owner)], segment, count)].span(); };
      window.exchange(to, part(rank), from, part(from));
    }
  window.finish_all();
}

void pairwise_allreduce(Net& net, ConstBuffer in, Buffer out, Reduction reduction, Scratch& scratch) {
  const Layout layout = layout_of(Partition{in.count, size_t(net.size())});
  pairwise_reduce_scatter(net, in, out[layout[size_t(net.rank())]], layout, reduction, scratch);
  pairwise_allgather(net, out, layout);
}

void pairwise_alltoall(Net& net, ConstBuffer in, const Layout& sent, Buffer out, const Layout& received) {
  const int rank = net.rank(), size = net.size();
  const pattern::Rotation rotation{rank, size};
  copy_into(out[received[size_t(rank)]], in[sent[size_t(rank)]]);
  Window window(net, window_of(net));
  for (int distance = 1; distance < size; ++distance) {
    window.make_room();
    const int to = rotation.to(distance), from = rotation.from(distance);
    window.exchange(to, in[sent[size_t(to)]].span(), from, out[received[size_t(from)]].span());
  }
  window.finish_all();
}

void pairwise_gather(Net& net, ConstBuffer in, Buffer out, int root, const Layout& layout) {
  const int size = net.size();
  Window window(net, std::max<size_t>(1, window_of(net)));
  if (net.rank() != root) {
    window.exchange(root, in.span(), root, {});
  } else {
    copy_into(out[layout[size_t(root)]], in);
    for (int distance = 1; distance < size; ++distance) {
      window.make_room();
      const int from = pattern::Rotation{root, size}.to(distance);
      window.exchange(from, {}, from, out[layout[size_t(from)]].span());
    }
  }
  window.finish_all();
}

void pairwise_scatter(Net& net, ConstBuffer in, Buffer out, int root, const Layout& layout) {
  const int size = net.size();
  Window window(net, std::max<size_t>(1, window_of(net)));
  if (net.rank() != root) {
    window.exchange(root, {}, root, out.span());
  } else {
    copy_into(out, in[layout[size_t(root)]]);
    for (int distance = 1; distance < size; ++distance) {
      window.make_room();
      const int to = pattern::Rotation{root, size}.to(distance);
      window.exchange(to, in[layout[size_t(to)]].span(), to, {});
    }
  }
  window.finish_all();
}

}  // namespace pycoll::algo
