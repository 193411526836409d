// Direct collectives through stages in shared memory: block by block, every rank puts what its peers need into its own
// stage, all meet at a barrier, and every rank reads what it needs from its peers' stages. A place in the stages is
// claimed for each block, so one barrier a block is enough: before it is claimed again all its readers have been met.
//
// Cost for S bytes in blocks of B (at most 64 KiB; allreduce of more than 2 ranks S/4, 16 to 128 KiB): allreduce of 2
// ranks ceil(S/B) barriers, S bytes read from the peer; of more ranks ceil(S/B) + 1 barriers, 2S(P-1)/P bytes read from
// peers. All others: ceil(S/B) barriers, and only what the rank ends with is read, less its own, S being the largest
// rank's input; blocks of scatter, reduce_scatter and alltoall are B/P a rank, and alltoall has one barrier more.
#include <array>
#include <cstring>

#include "algo/collectives.h"
#include "algo/local.h"
#include "core/copy.h"
#include "kernels/reduce.h"

namespace pycoll::algo {
namespace {

constexpr size_t kBlockBytes = 64 << 10;  // shown at once

class Stages {
 public:
  // `result`: bytes that this rank ends with.
  Stages(Net& net, DType dtype, size_t result = 0)
      : net_(net), memory_(*net.shared()), dtype_(dtype), results_(result_stores(net, result)) {}

  size_t elements() const { return memory_.stage_bytes() / size_of(dtype_); }
  // Elements shown at once, of one chunk or of one a rank.
  size_t block() const { return std::min(memory_.stage_bytes(), kBlockBytes) / size_of(dtype_); }
  size_t slot() const { return std::max(block() / size_t(net_.size()), size_t(1)); }
  // A place in every rank's stage for `count` elements, to put into before the next meet().
  void claim(size_t count) { open_ = memory_.claim(count * size_of(dtype_)); }
  void put(size_t at, ConstBuffer x) {
    pycoll::copy_into(memory_.stage(net_.rank(), open_) + at * size_of(dtype_), x.data, x.bytes(),
                      memory_.staged_stores());
  }
  void meet() {
    memory_.barrier(net_.deadline());
    shown_ = open_;
  }
  // What a peer put there before the last meet().
  const std::byte* of(int peer, size_t at, size_t count) {
    memory_.note_access(peer, count * size_of(dtype_));
    return memory_.stage(peer, shown_) + at * size_of(dtype_);
  }
  void get(Buffer out, int peer, size_t at) {
    if (out.count) pycoll::copy_into(out.data, of(peer, at, out.count), out.bytes(), results_);
  }
  // out = x, of this rank's own.
  void keep(Buffer out, ConstBuffer x) {
    if (out.count && out.data != x.data) pycoll::copy_into(out.data, x.data, x.bytes(), results_);
  }
  // out = the sum of `own` and what the peers show from element `at` on, in rank order.
  void reduce(ConstBuffer own, Buffer out, size_t at, Reduction reduction) {
    inputs_.clear();
    for (int peer = 0; peer < net_.size(); ++peer)
      inputs_.push_back(peer == net_.rank() ? own.data : of(peer, at, out.count));
    kernels::reduce_all(out, inputs_, reduction.op, reduction.divisor);
  }

 private:
  Net& net_;
  SharedMemory& memory_;
  DType dtype_;
  Stores results_;
  size_t open_ = 0, shown_ = 0;
  std::vector<const std::byte*> inputs_;
};

// Elements of an allreduce that are shown at once: few enough that showing one block, summing another and taking a
// third overlap, many enough that meeting does not cost more than they do, and leaving room for the sums behind them.
size_t allreduce_block(size_t stage, size_t count, int ranks, DType dtype) {
  constexpr size_t kLeastBytes = 16 << 10, kMostBytes = 128 << 10, kBlocks = 4;
  const size_t room = stage * size_t(ranks) / (size_t(ranks) + 1) - 1;
  return std::min(std::clamp(count / kBlocks, kLeastBytes / size_of(dtype), kMostBytes / size_of(dtype)), room);
}

constexpr size_t blocks_of(size_t count, size_t block) {
  return count == 0 ? 0 : (count + block - 1) / block;
}

}  // namespace

// Two ranks show blocks whole and sum them whole: as many bytes travel as when each sums half and passes it on, and
// ranks meet half as often. Between two meetings a rank shows block b and sums block b - 1.
static void allreduce_pair(Net& net, ConstBuffer in, Buffer out, Reduction reduction) {
  Stages stages(net, in.dtype);
  const size_t block = std::min(stages.block(), in.count), blocks = blocks_of(in.count, block);
  for (size_t b = 0; b <= blocks; ++b) {
    if (b > 0) stages.meet();
    if (b < blocks) {
      stages.claim(block);
      stages.put(0, in[segment_of({0, in.count}, b, block)]);
    }
    if (b > 0) {
      const Range summed = segment_of({0, in.count}, b - 1, block);
      stages.reduce(in[summed], out[summed], 0, reduction);
    }
  }
}

void direct_allreduce(Net& net, ConstBuffer in, Buffer out, Reduction reduction) {
  if (net.size() == 1) return kernels::reduce_all(out, std::array{in.data}, reduction.op, reduction.divisor);
  if (in.count == 0) return;
  if (net.size() == 2) return allreduce_pair(net, in, out, reduction);
  Stages stages(net, in.dtype);
  const size_t block = allreduce_block(stages.elements(), in.count, net.size(), in.dtype),
               blocks = blocks_of(in.count, block);
  const size_t most = (block + size_t(net.size()) - 1) / size_t(net.size());
  const auto part = [&](size_t b, int rank) {
    const Range whole = segment_of({0, in.count}, b, block);
    const Range r = Partition{whole.count, size_t(net.size())}[size_t(rank)];
    return Range{whole.begin + r.begin, r.count};
  };
  // Between two meetings a rank shows block b, sums its part of block b - 1 and shows the sum behind, and takes the
  // others' sums of block b - 2.
  for (size_t b = 0; b <= blocks + 1; ++b) {
    if (b > 0) stages.meet();
    if (b <= blocks) stages.claim(block + most);
    if (b < blocks) {
      for (int peer = 0; peer < net.size(); ++peer)
        if (peer != net.rank()) stages.put(part(b, peer).begin - b * block, in[part(b, peer)]);
    }
    if (b > 0 && b <= blocks) {
      const Range mine = part(b - 1, net.rank());
      stages.reduce(in[mine], out[mine], mine.begin - (b - 1) * block, reduction);
      stages.put(block, out[mine]);
    }
    if (b > 1) {
      for (int peer = 0; peer < net.size(); ++peer)
        if (peer != net.rank()) stages.get(out[part(b - 2, peer)], peer, block);
    }
  }
}

void direct_reduce(Net& net, ConstBuffer in, Buffer out, int root, Reduction reduction) {
  Stages stages(net, in.dtype);
  const size_t block = std::min(stages.block(), in.count);
  for (size_t b = 0; b < blocks_of(in.count, block); ++b) {
    const Range range = segment_of({0, in.count}, b, block);
    stages.claim(range.count);
    if (net.rank() != root) stages.put(0, in[range]);
    stages.meet();
    if (net.rank() == root) stages.reduce(in[range], out[range], 0, reduction);
  }
}

void direct_broadcast(Net& net, Buffer x, int root) {
  Stages stages(net, x.dtype, x.bytes());
  const size_t block = std::min(stages.block(), x.count);
  for (size_t b = 0; b < blocks_of(x.count, block); ++b) {
    const Range range = segment_of({0, x.count}, b, block);
    stages.claim(range.count);
    if (net.rank() == root) stages.put(0, x[range]);
    stages.meet();
    if (net.rank() != root) stages.get(x[range], root, 0);
  }
}

void direct_allgather(Net& net, ConstBuffer in, Buffer out, const Layout& layout) {
  Stages stages(net, out.dtype, out.bytes());
  const size_t block = std::min(stages.block(), largest_of(layout));
  for (size_t b = 0; b < blocks_of(largest_of(layout), block); ++b) {
    const ConstBuffer own = in[segment_of({0, in.count}, b, block)];
    stages.claim(block);
    stages.put(0, own);
    stages.meet();
    for (int peer = 0; peer < net.size(); ++peer) {
      const Buffer to = out[segment_of(layout[size_t(peer)], b, block)];
      peer == net.rank() ? stages.keep(to, own) : stages.get(to, peer, 0);
    }
  }
}

void direct_gather(Net& net, ConstBuffer in, Buffer out, int root, const Layout& layout) {
  Stages stages(net, in.dtype, out.bytes());
  const size_t block = std::min(stages.block(), largest_of(layout));
  for (size_t b = 0; b < blocks_of(largest_of(layout), block); ++b) {
    const ConstBuffer own = in[segment_of({0, in.count}, b, block)];
    stages.claim(block);
    if (net.rank() != root) stages.put(0, own);
    stages.meet();
    if (net.rank() != root) continue;
    for (int peer = 0; peer < net.size(); ++peer) {
      const Buffer to = out[segment_of(layout[size_t(peer)], b, block)];
      peer == root ? stages.keep(to, own) : stages.get(to, peer, 0);
    }
  }
}

// In the three below a stage is divided into one slot a peer.

void direct_scatter(Net& net, ConstBuffer in, Buffer out, int root, const Layout& layout) {
  Stages stages(net, out.dtype, out.bytes());
  const size_t slot = std::min(stages.slot(), largest_of(layout));
  for (size_t b = 0; b < blocks_of(largest_of(layout), slot); ++b) {
    const Buffer to = out[segment_of({0, out.count}, b, slot)];
    stages.claim(slot * layout.size());
    if (net.rank() == root) {
      for (size_t peer = 0; peer < layout.size(); ++peer)
        if (int(peer) != root) stages.put(peer * slot, in[segment_of(layout[peer], b, slot)]);
      stages.keep(to, in[segment_of(layout[size_t(root)], b, slot)]);
    }
    stages.meet();
    if (net.rank() != root) stages.get(to, root, size_t(net.rank()) * slot);
  }
}

void direct_reduce_scatter(Net& net, ConstBuffer in, Buffer out, const Layout& layout, Reduction reduction) {
  Stages stages(net, in.dtype);
  const size_t rank = size_t(net.rank()), slot = std::min(stages.slot(), largest_of(layout));
  for (size_t b = 0; b < blocks_of(largest_of(layout), slot); ++b) {
    stages.claim(slot * layout.size());
    for (size_t peer = 0; peer < layout.size(); ++peer)
      if (peer != rank) stages.put(peer * slot, in[segment_of(layout[peer], b, slot)]);
    stages.meet();
    stages.reduce(in[segment_of(layout[rank], b, slot)], out[segment_of({0, out.count}, b, slot)], rank * slot,
                  reduction);
  }
}

void direct_alltoall(Net& net, ConstBuffer in, const Layout& sent, Buffer out, const Layout& received) {
  Stages stages(net, in.dtype, out.bytes());
  const size_t rank = size_t(net.rank());
  // Ranks differ in what they send, but must agree on the number of blocks: the largest of all.
  const uint64_t mine = std::max(largest_of(sent), largest_of(received));
  uint64_t most = 0;
  const ConstBuffer header{reinterpret_cast<const std::byte*>(&mine), 1, DType::u64};
  Stages headers(net, DType::u64);
  headers.claim(1);
  headers.put(0, header);
  headers.meet();
  headers.reduce(header, Buffer{reinterpret_cast<std::byte*>(&most), 1, DType::u64}, 0, {ReduceOp::max});
  const size_t slot = std::min(stages.slot(), size_t(most));
  for (size_t b = 0; b < blocks_of(most, slot); ++b) {
    stages.claim(slot * sent.size());
    for (size_t peer = 0; peer < sent.size(); ++peer)
      if (peer != rank) stages.put(peer * slot, in[segment_of(sent[peer], b, slot)]);
    stages.meet();
    for (size_t peer = 0; peer < sent.size(); ++peer) {
      const Buffer to = out[segment_of(received[peer], b, slot)];
      peer == rank ? stages.keep(to, in[segment_of(sent[peer], b, slot)]) : stages.get(to, int(peer), rank * slot);
    }
  }
}

}  // namespace pycoll::algo
