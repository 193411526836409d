// Every algorithm on the recorder, for P = 1 ... 64: the rounds and the bytes each rank sends are what the head of its
// file says. The formulas are written again here, from those words.
#include <algorithm>
#include <bit>
#include <cstdlib>
#include <memory>

#include "algo/collectives.h"
#include "check.h"
#include "pattern/hierarchy.h"
#include "transport/recorder.h"

using namespace pycoll;

namespace {

// PYCOLL_TEST_QUICK=1: for the sanitizers, which take ten times as long.
const int kMostRanks = std::getenv("PYCOLL_TEST_QUICK") ? 17 : 64;
constexpr size_t KiB = 1 << 10;

// Arrays of f32 that nobody reads for their values.
struct Arena {
  std::vector<float> in, out;
  Arena(size_t count) : in(count, 1.0f), out(count) {}
  ConstBuffer input() { return {reinterpret_cast<const std::byte*>(in.data()), in.size(), DType::f32}; }
  Buffer output() { return {reinterpret_cast<std::byte*>(out.data()), out.size(), DType::f32}; }
};

using Body = std::function<void(Net&, Scratch&)>;
constexpr Pipeline kOverMemory{256 * KiB, 2}, kDeep{60 * KiB, 16};
Recording record(int size, const Body& body, Pipeline pipeline = kOverMemory) {
  Recording recording(size);
  Scratch scratch;
  for (int rank = 0; rank < size; ++rank) {
    Recorder transport(recording, rank, size, Recorder::Memory::separate);
    transport.set_pipeline(pipeline);
    Net net(transport, Deadline::after(60));
    body(net, scratch);
  }
  return recording;
}

struct Cost {
  int rounds;
  std::vector<size_t> bytes;  // sent, by rank
};
enum class Rounds { exact, at_most };

void expect(const char* what, size_t count, const Recording& recording, const Cost& cost,
            Rounds rounds = Rounds::exact) {
  const int size = int(cost.bytes.size()), got = recording.rounds();
  CHECK(rounds == Rounds::exact ? got == cost.rounds : got <= cost.rounds, what, ": ", size, " ranks, ", count,
        " elements: ", got, " rounds, the formula says ", cost.rounds);
  for (int rank = 0; rank < size; ++rank)
    CHECK(recording.bytes_sent(rank) == cost.bytes[size_t(rank)], what, ": ", size, " ranks, ", count,
          " elements: rank ", rank, " sent ", recording.bytes_sent(rank), " bytes, the formula says ",
          cost.bytes[size_t(rank)]);
}

int ceil_log2(int x) {
  return int(std::bit_width(unsigned(x - 1)));
}
int floor_log2(int x) {
  return int(std::bit_width(unsigned(x))) - 1;
}
size_t ceil_div(size_t a, size_t b) {
  return (a + b - 1) / b;
}

// Bytes of chunk `i`, counted around the ring, of a fair division of f32.
struct Chunks {
  size_t count;
  int size;
  size_t operator[](int i) const { return 4 * (count / size_t(size) + (size_t(i % size) < count % size_t(size))); }
};

// 0, 1, around P, primes, and some that need segments.
std::vector<size_t> counts_for(int size) {
  const size_t p = size_t(size);
  std::vector<size_t> counts{0, 1, p - 1, p, p + 1, 12 * p, 1009, 8191, 20011, 32769};
  if (size <= 8 || size % 13 == 0) counts.insert(counts.end(), {200003, 1000003});
  return counts;
}

// For all numbers of ranks and all counts.
void sweep(const std::function<void(int size, size_t count)>& one) {
  for (int size = 1; size <= kMostRanks; ++size)
    for (const size_t count : counts_for(size)) one(size, count);
}

Cost per_rank(int rounds, int size, const std::function<size_t(int)>& bytes) {
  Cost cost{rounds, {}};
  for (int rank = 0; rank < size; ++rank) cost.bytes.push_back(bytes(rank));
  return cost;
}

using Allreduce = void (*)(Net&, ConstBuffer, Buffer, algo::Reduction, Scratch&);
Recording record_allreduce(int size, size_t count, Allreduce allreduce, Pipeline pipeline = kOverMemory) {
  Arena arena(count);
  const auto body = [&](Net& net, Scratch& scratch) {
    allreduce(net, arena.input(), arena.output(), {ReduceOp::avg, size}, scratch);
  };
  return record(size, body, pipeline);
}
using ReduceScatter = void (*)(Net&, ConstBuffer, Buffer, const Layout&, algo::Reduction, Scratch&);
Recording record_reduce_scatter(int size, const Layout& layout, ReduceScatter reduce_scatter) {
  Arena arena(total_of(layout));
  return record(size, [&](Net& net, Scratch& scratch) {
    const Buffer own = arena.output()[layout[size_t(net.rank())]];
    reduce_scatter(net, arena.input(), own, layout, {ReduceOp::sum}, scratch);
  });
}
Recording record_allgather(int size, const Layout& layout,
                           const std::function<void(Net&, Buffer, Scratch&)>& allgather) {
  Arena arena(total_of(layout));
  return record(size, [&](Net& net, Scratch& scratch) { allgather(net, arena.output(), scratch); });
}
Layout fair(int size, size_t count) {
  return layout_of(Partition{count, size_t(size)});
}

int ring_segments(size_t largest, Pipeline pipeline = kOverMemory) {
  if (largest == 0) return 0;
  const size_t lanes = std::max<size_t>(1, std::min(pipeline.depth, largest / (16 * KiB)));
  return int(lanes * ceil_div(largest, lanes * pipeline.bytes));
}

// A layout with large, small and empty chunks.
Layout uneven(int size, size_t count) {
  std::vector<size_t> counts(static_cast<size_t>(size));
  size_t left = count;
  for (size_t i = 0; i + 1 < counts.size(); ++i) left -= counts[i] = i % 3 == 1 ? 0 : left / (2 + i % 5);
  counts.back() = left;
  return layout_of(counts);
}

TEST("rounds: ring") {
  sweep([](int size, size_t count) {
    const Chunks chunk{count, size};
    const int pass = (size - 1) * ring_segments(chunk[0]);
    expect("ring_allreduce", count, record_allreduce(size, count, algo::ring_allreduce),
           per_rank(2 * pass, size, [&](int r) { return size == 1 ? 0 : 8 * count - chunk[r] - chunk[r + 1]; }));
    expect("ring_reduce_scatter", count, record_reduce_scatter(size, fair(size, count), algo::ring_reduce_scatter),
           per_rank(pass, size, [&](int r) { return 4 * count - chunk[r]; }));
    const Layout layout = fair(size, count);
    expect("ring_allgather", count,
           record_allgather(size, layout, [&](Net& net, Buffer x, Scratch&) { algo::ring_allgather(net, x, layout); }),
           per_rank(pass, size, [&](int r) { return size == 1 ? 0 : 4 * count - chunk[r + 1]; }));
  });
}

// On a transport that wants more and shorter segments in flight.
TEST("rounds: ring, deep") {
  for (int size = 1; size <= std::min(kMostRanks, 9); ++size)
    for (const size_t count : {1, 1009, 20011, 200003, 1000003}) {
      const Chunks chunk{count, size};
      expect("ring_allreduce", count, record_allreduce(size, count, algo::ring_allreduce, kDeep),
             per_rank(2 * (size - 1) * ring_segments(chunk[0], kDeep), size,
                      [&](int r) { return size == 1 ? 0 : 8 * count - chunk[r] - chunk[r + 1]; }),
             count < size_t(size) ? Rounds::at_most : Rounds::exact);
    }
}

TEST("rounds: ring, uneven layouts") {
  sweep([](int size, size_t count) {
    const Layout layout = uneven(size, count);
    const auto chunk = [&](int i) { return 4 * layout[size_t(i % size)].count; };
    const int pass = (size - 1) * ring_segments(4 * largest_of(layout));
    expect("ring_reduce_scatter", count, record_reduce_scatter(size, layout, algo::ring_reduce_scatter),
           per_rank(pass, size, [&](int r) { return 4 * count - chunk(r); }), Rounds::at_most);
    expect("ring_allgather", count,
           record_allgather(size, layout, [&](Net& net, Buffer x, Scratch&) { algo::ring_allgather(net, x, layout); }),
           per_rank(pass, size, [&](int r) { return size == 1 ? 0 : 4 * count - chunk(r + 1); }), Rounds::at_most);
  });
}

void check_circulant(int size, const Layout& layout) {
  const size_t count = total_of(layout);
  const auto chunk = [&](int i) { return 4 * layout[size_t(i % size)].count; };
  expect("circulant_reduce_scatter", count, record_reduce_scatter(size, layout, algo::circulant_reduce_scatter),
         per_rank(ceil_log2(size), size, [&](int r) { return 4 * count - chunk(r); }));
  const auto gathered = [&](int r) {
    size_t bytes = 0;
    for (int left = size; left > 1; left = (left + 1) / 2)
      for (int i = 0; i < left / 2; ++i) bytes += chunk(r + i);
    return bytes;
  };
  expect("circulant_allgather", count,
         record_allgather(
             size, layout,
             [&](Net& net, Buffer x, Scratch& scratch) { algo::circulant_allgather(net, x, layout, scratch); }),
         per_rank(ceil_log2(size), size, gathered));
}

TEST("rounds: circulant") {
  sweep([](int size, size_t count) {
    check_circulant(size, fair(size, count));
    check_circulant(size, uneven(size, count));
    if (count % size_t(size) != 0) return;
    expect("circulant_allreduce", count, record_allreduce(size, count, algo::circulant_allreduce),
           per_rank(2 * ceil_log2(size), size, [&](int) { return 8 * count / size_t(size) * size_t(size - 1); }));
  });
}

// What folding ranks send: odd ones the array, even ones the array beside what corners send.
size_t folded(int rank, int size, size_t array, const std::function<size_t(int corner)>& corner_sends) {
  const int rest = size - (1 << floor_log2(size));
  if (rank >= 2 * rest) return corner_sends(rank - rest);
  return rank % 2 ? array : array + corner_sends(rank / 2);
}

TEST("rounds: doubling") {
  sweep([](int size, size_t count) {
    const int dimensions = floor_log2(size), rounds = dimensions + (std::has_single_bit(unsigned(size)) ? 0 : 2);
    const auto corner = [&](int) { return 4 * count * size_t(dimensions); };
    expect("doubling_allreduce", count, record_allreduce(size, count, algo::doubling_allreduce),
           per_rank(rounds, size, [&](int r) { return folded(r, size, 4 * count, corner); }));
  });
}

TEST("rounds: halving") {
  sweep([](int size, size_t count) {
    const int dimensions = floor_log2(size), rounds = 2 * dimensions + (std::has_single_bit(unsigned(size)) ? 0 : 2);
    const auto corner = [&](int c) {
      size_t window = count, sent = 0;
      for (int d = 0; d < dimensions; ++d) {
        const size_t lower = (window + 1) / 2;
        const bool upper = c >> d & 1;
        sent += upper ? lower : window - lower;  // given away
        window = upper ? window - lower : lower;
        sent += window;  // passed on complete, on the way back
      }
      return 4 * sent;
    };
    expect("halving_allreduce", count, record_allreduce(size, count, algo::halving_allreduce),
           per_rank(rounds, size, [&](int r) { return folded(r, size, 4 * count, corner); }));
  });
}

// The tree of the in-order indices 1 ... size, by descent: the root of (0, end) is its largest power of two, and so on.
struct Node {
  int parent = 0, children = 0;
};
void build(std::vector<Node>& nodes, int begin, int end, int parent) {
  if (begin + 1 >= end) return;  // the indices strictly between
  const int root = begin + (1 << floor_log2(end - begin - 1));
  nodes[size_t(root)].parent = parent;
  ++nodes[size_t(parent)].children;
  build(nodes, begin, root, root);
  build(nodes, root, end, root);
}
std::vector<Node> in_order_tree(int size) {
  std::vector<Node> nodes(size_t(size) + 1);
  build(nodes, 0, size + 1, 0);
  return nodes;
}

struct Halves {
  size_t bytes[2];
  Halves(size_t count, bool one_tree) : bytes{4 * ((count + 1) / 2), 4 * (count / 2)} {
    if (one_tree || 4 * count < 8 * KiB) bytes[0] = 4 * count, bytes[1] = 0;
  }
  int segments(int tree) const { return int(ceil_div(bytes[tree], 64 * KiB)); }
};

TEST("rounds: double tree allreduce") {
  sweep([](int size, size_t count) {
    const Halves half(count, size == 1);
    const auto nodes = in_order_tree(size);
    const auto sent = [&](int r) {
      size_t bytes = 0;
      for (int tree = 0; tree < 2; ++tree) {
        const Node& node = nodes[size_t((r + tree) % size + 1)];
        bytes += half.bytes[tree] * size_t((node.parent != 0) + node.children);
      }
      return bytes;
    };
    const int rounds = std::max(2 * floor_log2(size) + half.segments(0) - 1, half.segments(0) + half.segments(1));
    const Recording recording = record_allreduce(size, count, algo::tree_allreduce);
    const bool waits = half.segments(0) > 1 && (size == 19 || (size >= 35 && size <= 39) || size == 51);
    const Cost cost = per_rank(size == 1 || count == 0 ? 0 : rounds + 2 * waits, size, sent);
    expect("tree_allreduce", count, recording, cost, waits ? Rounds::at_most : Rounds::exact);
    if (half.bytes[0] == half.bytes[1])
      for (int r = 0; r < size; ++r) CHECK(recording.bytes_sent(r) <= 8 * count, "rank ", r, " of ", size);
  });
}

TEST("rounds: rooted double tree") {
  sweep([](int size, size_t count) {
    if (size == 1) return;
    const Halves half(count, size == 2);
    const auto nodes = in_order_tree(size - 1);
    const int rounds = count == 0 ? 0 : floor_log2(size - 1) + half.segments(0);
    Arena arena(count);
    for (const int root : {0, size / 2, size - 1}) {
      expect("tree_reduce", count,
             record(size,
                    [&](Net& net, Scratch& scratch) {
                      algo::tree_reduce(net, arena.input(), arena.output(), root, {ReduceOp::avg, size}, scratch);
                    }),
             per_rank(rounds, size, [&](int r) { return r == root ? 0 : 4 * count; }));
      const auto sent = [&](int r) {
        if (r == root) return 4 * count;
        const int other = (r - root - 1 + size) % size;
        size_t bytes = 0;
        for (int tree = 0; tree < 2; ++tree)
          bytes += half.bytes[tree] * size_t(nodes[size_t((other + tree) % (size - 1) + 1)].children);
        return bytes;
      };
      expect("tree_broadcast", count,
             record(size, [&](Net& net, Scratch&) { algo::tree_broadcast(net, arena.output(), root); }),
             per_rank(rounds, size, sent));
      if (half.bytes[0] == half.bytes[1])
        for (int r = 0; r < size; ++r) CHECK(sent(r) <= 4 * count, "rank ", r, " of ", size, " from root ", root);
    }
  });
}

TEST("rounds: binomial gather and scatter") {
  sweep([](int size, size_t count) {
    Arena arena(count), other(count);
    for (const Layout& layout : {fair(size, count), uneven(size, count)})
      for (const int root : {0, size / 3, size - 1}) {
        // Bytes at and under a rank, by who is above whom: places whose low bits are cleared one after the other.
        std::vector<size_t> under(static_cast<size_t>(size));
        for (int place = 0; place < size; ++place)
          for (int above = place;; above &= above - 1) {
            under[size_t((above + root) % size)] += 4 * layout[size_t((place + root) % size)].count;
            if (above == 0) break;
          }
        expect("tree_gather", count,
               record(size,
                      [&](Net& net, Scratch& scratch) {
                        const ConstBuffer own = arena.input()[layout[size_t(net.rank())]];
                        algo::tree_gather(net, own, other.output(), root, layout, scratch);
                      }),
               per_rank(floor_log2(size), size, [&](int r) { return r == root ? 0 : under[size_t(r)]; }));
        expect("tree_scatter", count,
               record(size,
                      [&](Net& net, Scratch& scratch) {
                        const Buffer own = other.output()[layout[size_t(net.rank())]];
                        algo::tree_scatter(net, arena.input(), own, root, layout, scratch);
                      }),
               per_rank(floor_log2(size), size, [&](int r) { return under[size_t(r)] - 4 * layout[size_t(r)].count; }));
      }
  });
}

TEST("rounds: pairwise") {
  sweep([](int size, size_t count) {
    const size_t peers = size_t(size - 1), window = std::max<size_t>(1, std::min<size_t>(16, peers));
    for (const Layout& layout : {fair(size, count), uneven(size, count)}) {
      const bool full = std::all_of(layout.begin(), layout.end(), [](Range r) { return r.count > 0; });
      // Uneven chunks have unequal numbers of segments.
      const bool even = largest_of(layout) <= layout.back().count + 1;
      const auto chunk = [&](int i) { return 4 * layout[size_t(i)].count; };
      const size_t segment = size == 1 ? 1 : std::clamp(2048 * KiB / peers, 4 * KiB, 256 * KiB);
      const int reduce = int(ceil_div(ceil_div(4 * largest_of(layout), segment) * peers, window));
      const int gather = int(ceil_div(ceil_div(4 * largest_of(layout), 256 * KiB) * peers, window)),
                root_links = int(ceil_div(peers, window));
      expect("pairwise_reduce_scatter", count, record_reduce_scatter(size, layout, algo::pairwise_reduce_scatter),
             per_rank(reduce, size, [&](int r) { return 4 * count - chunk(r); }),
             full && even ? Rounds::exact : Rounds::at_most);
      expect("pairwise_allgather", count,
             record_allgather(size, layout,
                              [&](Net& net, Buffer x, Scratch&) { algo::pairwise_allgather(net, x, layout); }),
             per_rank(gather, size, [&](int r) { return peers * chunk(r); }),
             full && even ? Rounds::exact : Rounds::at_most);
      if (layout == fair(size, count))
        expect("pairwise_allreduce", count, record_allreduce(size, count, algo::pairwise_allreduce),
               per_rank(reduce + gather, size, [&](int r) { return 4 * count - chunk(r) + peers * chunk(r); }),
               full ? Rounds::exact : Rounds::at_most);
      Arena arena(count), other(count);
      for (const int root : {0, size / 3, size - 1}) {
        expect("pairwise_gather", count,
               record(size,
                      [&](Net& net, Scratch&) {
                        algo::pairwise_gather(net, arena.input()[layout[size_t(net.rank())]], other.output(), root,
                                              layout);
                      }),
               per_rank(root_links, size, [&](int r) { return r == root ? 0 : chunk(r); }), Rounds::at_most);
        expect("pairwise_scatter", count,
               record(size,
                      [&](Net& net, Scratch&) {
                        algo::pairwise_scatter(net, arena.input(), other.output()[layout[size_t(net.rank())]], root,
                                               layout);
                      }),
               per_rank(root_links, size, [&](int r) { return r == root ? 4 * count - chunk(r) : 0; }),
               Rounds::at_most);
      }
    }
  });
}

TEST("rounds: pairwise alltoall") {
  for (int size = 1; size <= kMostRanks; ++size) {
    const auto count = [](int from, int to) { return size_t(1 + (from * 5 + to * 3) % 7); };
    const int window = std::max(1, std::min(16, size - 1));
    const auto sent_by = [&](int r) {
      size_t bytes = 0;
      for (int to = 0; to < size; ++to) bytes += to == r ? 0 : 4 * count(r, to);
      return bytes;
    };
    Arena arena(size_t(7 * size));
    expect("pairwise_alltoall", size_t(size),
           record(size,
                  [&](Net& net, Scratch&) {
                    std::vector<size_t> sent, received;
                    for (int peer = 0; peer < size; ++peer) {
                      sent.push_back(count(net.rank(), peer));
                      received.push_back(count(peer, net.rank()));
                    }
                    const Layout out = layout_of(sent), in = layout_of(received);
                    algo::pairwise_alltoall(net, arena.input(), out, arena.output(), in);
                  }),
           per_rank((size - 1 + window - 1) / window, size, sent_by));
  }
}

TEST("rounds: dissemination") {
  for (int size = 1; size <= kMostRanks; ++size) {
    expect("dissemination_barrier", 0, record(size, [](Net& net, Scratch&) { algo::dissemination_barrier(net); }),
           per_rank(ceil_log2(size), size, [](int) { return 0; }));
    Arena arena(size_t(3 * size));
    expect(
        "dissemination_allgather", 3,
        record(size, [&](Net& net,
                         Scratch& scratch) { algo::dissemination_allgather(net, arena.output().span(), 12, scratch); }),
        per_rank(ceil_log2(size), size, [&](int) { return size_t(12 * (size - 1)); }));
  }
}

// Nodes of `node_size` ranks each, the last `short_of` fewer.
void check_hierarchical(int nodes, int node_size, int short_of, size_t count) {
  pattern::Hierarchy hierarchy;
  for (int node = 0; node < nodes; ++node)
    for (int i = 0; i < node_size - (node + 1 == nodes ? short_of : 0); ++i) hierarchy.node_of.push_back(node);
  const int size = int(hierarchy.node_of.size()), lanes = node_size - short_of;
  Arena arena(count);
  const Recording recording = record(size, [&](Net& net, Scratch& scratch) {
    Net node = net.among(hierarchy.members(hierarchy.node_of[size_t(net.rank())]));
    std::unique_ptr<Net> across;
    if (node.rank() < hierarchy.lanes()) across = std::make_unique<Net>(net.among(hierarchy.across(node.rank())));
    algo::Levels levels{node, across.get(), hierarchy.lanes()};
    algo::hierarchical_allreduce(levels, arena.input(), arena.output(), {ReduceOp::avg, size}, scratch);
  });

  const size_t blocks = std::max<size_t>(1, ceil_div(4 * count, size_t(lanes) * 2048 * KiB));
  const auto block = [&](size_t b) { return Chunks{count, int(blocks)}[int(b)] / 4; };
  const auto sent = [&](int rank) {
    const int node = rank / node_size, place = rank % node_size, ranks = node + 1 == nodes ? lanes : node_size;
    size_t bytes = 0;
    for (size_t b = 0; b < blocks; ++b) {
      const Chunks lane_chunk{block(b), lanes};
      const auto chunk = [&](int i) { return i % ranks < lanes ? lane_chunk[i % ranks] : 0; };
      bytes += ranks == 1 ? 0 : 8 * block(b) - chunk(place) - chunk(place + 1);
      const Chunks piece{place < lanes ? lane_chunk[place] / 4 : 0, nodes};
      if (place < lanes && nodes > 1) bytes += 2 * lane_chunk[place] - piece[node] - piece[node + 1];
    }
    return bytes;
  };
  const Chunks lane_chunk{block(0), lanes}, piece{lane_chunk[0] / 4, nodes};
  const int inside = (node_size - 1) * ring_segments(lane_chunk[0]),
            between = 2 * (nodes - 1) * ring_segments(piece[0]);
  expect("hierarchical_allreduce", count, recording, per_rank(int(blocks) * (2 * inside + between), size, sent),
         short_of || blocks > 1 || piece.count < size_t(nodes) ? Rounds::at_most : Rounds::exact);
}

TEST("rounds: hierarchical") {
  for (int nodes = 1; nodes <= 8; ++nodes)
    for (int node_size = 1; node_size <= 8; ++node_size)
      for (const size_t count : {0, 1, 7, 64, 97, 1009, 100003})
        for (int short_of = 0; short_of < std::min(node_size, nodes > 1 ? 3 : 1); ++short_of)
          check_hierarchical(nodes, node_size, short_of, count);
}

TEST("rounds: hierarchical, several blocks") {
  for (int nodes = 1; nodes <= 3; ++nodes)
    for (int node_size = 1; node_size <= 3; ++node_size)
      for (int short_of = 0; short_of < std::min(node_size, nodes > 1 ? 2 : 1); ++short_of)
        check_hierarchical(nodes, node_size, short_of, 4'000'037);
}

// Direct collectives send nothing: barriers, and bytes read from peers in place. Stages of 4 KiB make many blocks.
void check_direct(int size, size_t count) {
  constexpr size_t kStage = 4 * KiB, kBlock = kStage / 4;
  const size_t p = size_t(size), slot = kBlock / p;
  const Layout layout = fair(size, count);
  Arena arena(count);
  const auto expect_reads = [&](const char* what, size_t barriers, const std::function<size_t(int)>& elements,
                                const Body& body) {
    Recording recording(size);
    for (int rank = 0; rank < size; ++rank) {
      Recorder transport(recording, rank, size, Recorder::Memory::common, kStage);
      Net net(transport, Deadline::after(60));
      Scratch scratch;
      body(net, scratch);
    }
    CHECK(recording.messages().empty(), what);
    CHECK(size_t(recording.barriers()) == barriers, what, ": ", size, " ranks, ", count,
          " elements: ", recording.barriers(), " barriers, the formula says ", barriers);
    for (int r = 0; r < size; ++r)
      CHECK(recording.bytes_accessed(r) == 4 * elements(r), what, ": ", size, " ranks, ", count, " elements: rank ", r,
            " read ", recording.bytes_accessed(r), " bytes, the formula says ", 4 * elements(r));
  };
  const auto own = [&](int r) { return layout[size_t(r)]; };
  const size_t blocks = ceil_div(count, kBlock);
  // More than two ranks leave room for their sums behind each block.
  const size_t shown = p <= 2 ? kBlock : kBlock * p / (p + 1) - 1;
  const auto allreduce_reads = [&](int r) {
    size_t elements = 0;
    for (size_t left = count; left > 0; left -= std::min(left, shown)) {
      const size_t block = std::min(left, shown), part = block / p + (size_t(r) < block % p);
      elements += p <= 2 ? block * (p - 1) : part * (p - 1) + block - part;
    }
    return elements;
  };
  expect_reads("direct_allreduce",
               p == 1 || count == 0 ? 0
               : p == 2             ? blocks
                                    : ceil_div(count, shown) + 1,
               allreduce_reads, [&](Net& net, Scratch&) {
                 algo::direct_allreduce(net, arena.input(), arena.output(), {ReduceOp::sum});
               });
  expect_reads(
      "direct_reduce_scatter", ceil_div(largest_of(layout), slot), [&](int r) { return own(r).count * (p - 1); },
      [&](Net& net, Scratch&) {
        const Buffer chunk = arena.output()[own(net.rank())];
        algo::direct_reduce_scatter(net, arena.input(), chunk, layout, {ReduceOp::sum});
      });
  expect_reads(
      "direct_allgather", ceil_div(largest_of(layout), kBlock), [&](int r) { return count - own(r).count; },
      [&](Net& net, Scratch&) { algo::direct_allgather(net, arena.input()[own(net.rank())], arena.output(), layout); });
  const int root = size / 2;
  expect_reads(
      "direct_broadcast", blocks, [&](int r) { return r == root ? 0 : count; },
      [&](Net& net, Scratch&) { algo::direct_broadcast(net, arena.output(), root); });
  expect_reads(
      "direct_reduce", blocks, [&](int r) { return r == root ? count * (p - 1) : 0; },
      [&](Net& net, Scratch&) { algo::direct_reduce(net, arena.input(), arena.output(), root, {ReduceOp::sum}); });
}

// In place: the same, and allreduce over symmetric memory writes its chunk into the P - 1 other arrays as well.
void check_in_place(int size, size_t count) {
  const size_t p = size_t(size);
  const Layout layout = fair(size, count);
  const auto own = [&](int r) { return layout[size_t(r)].count; };
  Arena arena(count);
  algo::Places places;
  for (int r = 0; r < size; ++r) places.in.push_back(arena.input().data), places.out.push_back(arena.output().data);
  const auto expect = [&](const char* what, int barriers, const std::function<size_t(int)>& elements,
                          const Body& body) {
    Recording recording(size);
    for (int rank = 0; rank < size; ++rank) {
      Recorder transport(recording, rank, size, Recorder::Memory::common);
      Net net(transport, Deadline::after(60));
      Scratch scratch;
      body(net, scratch);
    }
    CHECK(recording.messages().empty(), what);
    CHECK(recording.barriers() == barriers, what, ": ", size, " ranks, ", count, " elements: ", recording.barriers());
    for (int r = 0; r < size; ++r)
      CHECK(recording.bytes_accessed(r) == 4 * elements(r), what, ": ", size, " ranks, ", count, " elements: rank ", r,
            " read ", recording.bytes_accessed(r), " bytes, the formula says ", 4 * elements(r));
  };
  const auto chunk = [&](Net& net) { return arena.output()[layout[size_t(net.rank())]]; };
  const auto in_chunk = [&](Net& net) { return ConstBuffer(arena.input())[layout[size_t(net.rank())]]; };
  const algo::Reduction sum{ReduceOp::sum};
  const auto reduced = [&](int r) { return own(r) * (p - 1); };
  const auto both = [&](int r) { return 2 * own(r) * (p - 1); };
  const auto shared = [&](int r) { return own(r) * (p - 1) + count - own(r); };
  const auto rest = [&](int r) { return count - own(r); };
  const auto all_but_root = [&](int r) { return r == 0 ? 0 : count; };
  expect("symmetric_allreduce", 1, both,
         [&](Net& net, Scratch&) { algo::symmetric_allreduce(net, places, arena.input(), sum); });
  expect("symmetric_reduce_scatter", 1, reduced,
         [&](Net& net, Scratch&) { algo::symmetric_reduce_scatter(net, places, chunk(net), layout, sum); });
  expect("symmetric_allgather", 1, rest,
         [&](Net& net, Scratch&) { algo::symmetric_allgather(net, places, arena.output(), layout); });
  expect("symmetric_broadcast", 1, all_but_root,
         [&](Net& net, Scratch&) { algo::symmetric_broadcast(net, places, arena.output(), 0); });
  const auto at_root = [&](const std::function<size_t(int)>& elements) {
    return [elements](int r) { return r == 0 ? elements(r) : 0; };
  };
  expect("symmetric_reduce", 1, at_root([&](int) { return count * (p - 1); }),
         [&](Net& net, Scratch&) { algo::symmetric_reduce(net, places, arena.output(), 0, sum); });
  expect("symmetric_gather", 1, at_root(rest),
         [&](Net& net, Scratch&) { algo::symmetric_gather(net, places, arena.output(), 0, layout); });
  expect(
      "symmetric_scatter", 1, [&](int r) { return r == 0 ? 0 : own(r); },
      [&](Net& net, Scratch&) { algo::symmetric_scatter(net, places, chunk(net), 0, layout); });
  expect("single_copy_allreduce", 2, shared, [&](Net& net, Scratch& s) {
    algo::single_copy_allreduce(net, places, arena.input(), arena.output(), sum, s);
  });
  expect("single_copy_reduce_scatter", 1, reduced, [&](Net& net, Scratch& s) {
    algo::single_copy_reduce_scatter(net, places, arena.input(), chunk(net), layout, sum, s);
  });
  expect("single_copy_allgather", 1, rest,
         [&](Net& net, Scratch&) { algo::single_copy_allgather(net, places, in_chunk(net), arena.output(), layout); });
  expect("single_copy_broadcast", 1, all_but_root,
         [&](Net& net, Scratch&) { algo::single_copy_broadcast(net, places, arena.output(), 0); });
}

TEST("barriers and reads: in place") {
  for (int size = 1; size <= kMostRanks; ++size)
    for (const size_t count : {size_t(0), size_t(1), size_t(size) + 1, size_t(1009), size_t(100003)})
      check_in_place(size, count);
}

TEST("barriers and reads: direct") {
  for (int size = 1; size <= kMostRanks; ++size)
    for (const size_t count : {size_t(0), size_t(1), size_t(size) - 1, size_t(size) + 1, size_t(1009), size_t(8191)})
      check_direct(size, count);
}

// What must not pass: the recorder itself.
template <class Body>
std::string failure_of(int size, Body body) {
  try {
    record(size, body).messages();
  } catch (const TransportError& error) {
    return error.what();
  }
  return "";
}

TEST("recorder: deadlocks, lost messages and wrong sizes are found") {
  std::byte memory[8] = {};
  const Bytes bytes(memory);
  // Both send first: it ends only where a transport buffers.
  auto message = failure_of(2, [&](Net& net, Scratch&) {
    net.send(1 - net.rank(), bytes);
    net.recv(1 - net.rank(), bytes);
  });
  CHECK(message.find("deadlock") != std::string::npos, message);
  message = failure_of(3, [&](Net& net, Scratch&) { net.recv((net.rank() + 1) % 3, bytes); });
  CHECK(message.find("deadlock") != std::string::npos, message);
  message = failure_of(2, [&](Net& net, Scratch&) { net.rank() ? net.recv(0, bytes) : net.send(1, bytes.first(4)); });
  CHECK(message.find("4 bytes, its receive wants 8") != std::string::npos, message);
  message = failure_of(2, [&](Net& net, Scratch&) { net.rank() ? net.recv(0, bytes) : void(net.post_send(1, bytes)); });
  CHECK(message.find("never waits") != std::string::npos, message);
  message = failure_of(2, [&](Net& net, Scratch&) {
    if (net.rank() == 0) net.send(1, bytes);
  });
  CHECK(message.find("deadlock") != std::string::npos, message);
  message = failure_of(2, [&](Net& net, Scratch&) { net.exchange(1 - net.rank(), bytes, 1 - net.rank(), bytes); });
  CHECK(message.empty(), message);
}

TEST("recorder: a barrier of shared memory ends a round for all ranks") {
  Recording recording(3);
  std::byte memory[8] = {};
  for (int rank = 0; rank < 3; ++rank) {
    Recorder transport(recording, rank, 3, Recorder::Memory::common);
    Net net(transport, Deadline::after(60));
    if (rank == 0) net.send(1, memory);
    if (rank == 1) net.recv(0, memory);
    net.shared()->note_access((rank + 1) % 3, 5);
    net.shared()->barrier(net.deadline());
    if (rank == 2) net.send(1, memory);
    if (rank == 1) net.recv(2, memory);
  }
  const auto messages = recording.messages();
  CHECK(messages.size() == 2 && recording.rounds() == 2 && recording.barriers() == 1, messages.size());
  CHECK(messages[1].from == 2 && messages[1].round == 2, messages[1].round);
  CHECK(recording.bytes_accessed(1) == 5 && recording.bytes_sent(0) == 8, recording.bytes_accessed(1));
}

}  // namespace

int main(int argc, char** argv) {
  return check::run(argc, argv);
}
