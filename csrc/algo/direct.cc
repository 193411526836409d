// Direct collectives through stages in shared memory: in blocks of a stage, every rank copies its input into its own
// stage, all meet at a barrier, and every rank reads what it needs from its peers' stages. Stages alternate by parity,
// so one barrier a block is enough: whoever writes a stage again has met all its readers at the barrier in between.
//
// Cost for S bytes in blocks of B: allreduce of 2 ranks ceil(S/B) barriers, S bytes read from the peer; of more ranks
// 2 ceil(S/B) barriers, 2S(P-1)/P bytes read from peers. All others: ceil(S/B) barriers, and only what the rank ends
// with is read, S being the largest rank's input.
#include <array>
#include <cstring>

#include "algo/collectives.h"
#include "kernels/reduce.h"

namespace pycoll::algo {
namespace {

class Stages {
 public:
  explicit Stages(Net& net, DType dtype) : net_(net), memory_(*net.shared()), dtype_(dtype) {}

  size_t elements() const { return memory_.stage_bytes() / size_of(dtype_); }
  // This rank's stage, to write before the next meet(), from element `at` on.
  void put(size_t at, ConstBuffer x) {
    if (x.count) std::memcpy(memory_.stage(net_.rank(), memory_.parity()) + at * size_of(dtype_), x.data, x.bytes());
  }
  void meet() {
    shown_ = memory_.parity();
    memory_.barrier(net_.deadline());
  }
  // A peer's stage as of the last meet().
  const std::byte* of(int peer, size_t at, size_t count) {
    if (peer != net_.rank()) memory_.note_access(peer, count * size_of(dtype_));
    return memory_.stage(peer, shown_) + at * size_of(dtype_);
  }
  void get(Buffer out, int peer, size_t at) {
    if (out.count) std::memcpy(out.data, of(peer, at, out.count), out.bytes());
  }
  // Asks for lines of a peer's stage that will be read soon.
  void prefetch(int peer, size_t at, size_t count) {
    const std::byte* const first = memory_.stage(peer, shown_) + at * size_of(dtype_);
    for (size_t line = 0; line < count * size_of(dtype_); line += 64) __builtin_prefetch(first + line, 0, 2);
  }
  // out = own op the peer's stage, in rank order. Both are two ranks' halves of one sum.
  void reduce_with(int peer, ConstBuffer own, Buffer out, size_t at, Reduction reduction) {
    const std::byte* inputs[2];
    inputs[net_.rank()] = own.data;
    inputs[peer] = of(peer, at, out.count);
    kernels::reduce_all(out, inputs, reduction.op, reduction.divisor);
  }
  void reduce(Buffer out, size_t at, Reduction reduction) {
    std::vector<const std::byte*> inputs;
    for (int peer = 0; peer < net_.size(); ++peer) inputs.push_back(of(peer, at, out.count));
    kernels::reduce_all(out, inputs, reduction.op, reduction.divisor);
  }

 private:
  Net& net_;
  SharedMemory& memory_;
  DType dtype_;
  int shown_ = 0;
};

constexpr size_t blocks_of(size_t count, size_t block) {
  return (count + block - 1) / block;
}

}  // namespace

// Two ranks: every block is shown whole and summed whole by both. Between two meetings a rank shows block b + 1 and
// sums block b, in turn, a page at a time, and asks for the peer's next page before it needs it: lines coming from the
// other core travel while this one copies.
static void allreduce_pair(Net& net, ConstBuffer in, Buffer out, Reduction reduction) {
  constexpr size_t kPageBytes = 4096;
  Stages stages(net, in.dtype);
  const int peer = 1 - net.rank();
  const size_t block = stages.elements(), page = kPageBytes / size_of(in.dtype);
  const size_t blocks = blocks_of(in.count, block);
  stages.put(0, in[segment_of({0, in.count}, 0, block)]);
  for (size_t b = 0; b < blocks; ++b) {
    stages.meet();
    const Range now = segment_of({0, in.count}, b, block), next = segment_of({0, in.count}, b + 1, block);
    for (size_t p = 0; p * page < now.count; ++p) {
      const Range summed = segment_of(now, p, page);
      stages.prefetch(peer, (p + 1) * page, segment_of(now, p + 1, page).count);
      stages.put(p * page, in[segment_of(next, p, page)]);
      stages.reduce_with(peer, in[summed], out[summed], p * page, reduction);
    }
  }
}

void direct_allreduce(Net& net, ConstBuffer in, Buffer out, Reduction reduction) {
  if (net.size() == 1) return kernels::reduce_all(out, std::array{in.data}, reduction.op, reduction.divisor);
  if (net.size() == 2) return allreduce_pair(net, in, out, reduction);
  Stages stages(net, in.dtype);
  const size_t block = stages.elements();
  for (size_t b = 0; b < blocks_of(in.count, block); ++b) {
    const Range range = segment_of({0, in.count}, b, block);
    stages.put(0, in[range]);
    stages.meet();
    // Each rank reduces its part of the block, then shows the result as others show theirs.
    const Partition parts{range.count, size_t(net.size())};
    const auto part = [&](int rank) {
      const Range r = parts[size_t(rank)];
      return Range{range.begin + r.begin, r.count};
    };
    const Range mine = part(net.rank());
    stages.reduce(out[mine], mine.begin - range.begin, reduction);
    stages.put(0, out[mine]);
    stages.meet();
    for (int peer = 0; peer < net.size(); ++peer)
      if (peer != net.rank()) stages.get(out[part(peer)], peer, 0);
  }
}

void direct_reduce(Net& net, ConstBuffer in, Buffer out, int root, Reduction reduction) {
  Stages stages(net, in.dtype);
  const size_t block = stages.elements();
  for (size_t b = 0; b < blocks_of(in.count, block); ++b) {
    const Range range = segment_of({0, in.count}, b, block);
    stages.put(0, in[range]);
    stages.meet();
    if (net.rank() == root) stages.reduce(out[range], 0, reduction);
  }
}

void direct_broadcast(Net& net, Buffer x, int root) {
  Stages stages(net, x.dtype);
  const size_t block = stages.elements();
  for (size_t b = 0; b < blocks_of(x.count, block); ++b) {
    const Range range = segment_of({0, x.count}, b, block);
    if (net.rank() == root) stages.put(0, x[range]);
    stages.meet();
    if (net.rank() != root) stages.get(x[range], root, 0);
  }
}

void direct_allgather(Net& net, ConstBuffer in, Buffer out, const Layout& layout) {
  Stages stages(net, out.dtype);
  const size_t block = stages.elements();
  for (size_t b = 0; b < blocks_of(largest_of(layout), block); ++b) {
    stages.put(0, in[segment_of({0, in.count}, b, block)]);
    stages.meet();
    for (int peer = 0; peer < net.size(); ++peer) stages.get(out[segment_of(layout[size_t(peer)], b, block)], peer, 0);
  }
}

void direct_gather(Net& net, ConstBuffer in, Buffer out, int root, const Layout& layout) {
  Stages stages(net, in.dtype);
  const size_t block = stages.elements();
  for (size_t b = 0; b < blocks_of(largest_of(layout), block); ++b) {
    stages.put(0, in[segment_of({0, in.count}, b, block)]);
    stages.meet();
    if (net.rank() != root) continue;
    for (int peer = 0; peer < net.size(); ++peer) stages.get(out[segment_of(layout[size_t(peer)], b, block)], peer, 0);
  }
}

// In the three below a stage is divided into one slot a peer.

void direct_scatter(Net& net, ConstBuffer in, Buffer out, int root, const Layout& layout) {
  Stages stages(net, out.dtype);
  const size_t slot = stages.elements() / size_t(net.size());
  for (size_t b = 0; b < blocks_of(largest_of(layout), slot); ++b) {
    if (net.rank() == root)
      for (size_t peer = 0; peer < layout.size(); ++peer)
        stages.put(peer * slot, in[segment_of(layout[peer], b, slot)]);
    stages.meet();
    stages.get(out[segment_of({0, out.count}, b, slot)], root, size_t(net.rank()) * slot);
  }
}

void direct_reduce_scatter(Net& net, ConstBuffer in, Buffer out, const Layout& layout, Reduction reduction) {
  Stages stages(net, in.dtype);
  const size_t slot = stages.elements() / size_t(net.size());
  for (size_t b = 0; b < blocks_of(largest_of(layout), slot); ++b) {
    for (size_t peer = 0; peer < layout.size(); ++peer) stages.put(peer * slot, in[segment_of(layout[peer], b, slot)]);
    stages.meet();
    stages.reduce(out[segment_of({0, out.count}, b, slot)], size_t(net.rank()) * slot, reduction);
  }
}

void direct_alltoall(Net& net, ConstBuffer in, const Layout& sent, Buffer out, const Layout& received) {
  Stages stages(net, in.dtype);
  const size_t slot = stages.elements() / size_t(net.size());
  // Ranks differ in what they send, but must agree on the number of blocks: the largest of all.
  const uint64_t mine = std::max(largest_of(sent), largest_of(received));
  uint64_t most = 0;
  Stages header(net, DType::u64);
  header.put(0, ConstBuffer{reinterpret_cast<const std::byte*>(&mine), 1, DType::u64});
  header.meet();
  header.reduce(Buffer{reinterpret_cast<std::byte*>(&most), 1, DType::u64}, 0, {ReduceOp::max});
  for (size_t b = 0; b < blocks_of(most, slot); ++b) {
    for (size_t peer = 0; peer < sent.size(); ++peer) stages.put(peer * slot, in[segment_of(sent[peer], b, slot)]);
    stages.meet();
    for (int peer = 0; peer < net.size(); ++peer)
      stages.get(out[segment_of(received[size_t(peer)], b, slot)], peer, size_t(net.rank()) * slot);
  }
}

}  // namespace pycoll::algo
