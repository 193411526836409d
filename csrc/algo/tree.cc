// Trees: allreduce, reduce and broadcast run in segments on a double binary tree, each tree for half of the array.
// Sanders, Speck and Träff 2009, "Two-tree algorithms for full bandwidth broadcast, reduction and scan".
//
// Cost of P ranks, S bytes, halves h_t of trees t = 0, 1 (Partition{count, 2}; all in tree 0 if S < 8 KiB, or if P = 2
// and there is a root), n_t = ceil(h_t / 64 KiB) segments, d = floor(log2 P), e = floor(log2(P-1)):
//   allreduce  max(2d + n_0 - 1, n_0 + n_1) rounds   for tree t, h_t to the parent and to each child
//   reduce     e + n_0 rounds                        S by all but the root
//   broadcast  e + n_0 rounds                        for tree t, h_t to each child
// No rank sends more than 2S in an allreduce, S in a broadcast, if the halves are equal. The trees of an allreduce
// share some links, hence n_0 + n_1; waiting for them adds a round or two at P = 19, 35 to 39 and 51 of the first 64.
//
// An allreduce sums in rank order, as a tree; tree 1 begins with the last rank: P-1, 0, 1, ..., P-2. A reduce begins
// with the root and goes around the ring; in tree 1, after the root comes the rank before it, then the others.
#include <algorithm>

#include "algo/collectives.h"
#include "algo/local.h"
#include "pattern/tree.h"

namespace pycoll::algo {
namespace {

using pattern::none;
using pattern::Place;

constexpr size_t kSegment = 64 << 10;
constexpr size_t kHalve = 8 << 10;  // below, two messages of half the size take longer than one
constexpr size_t kSlots = 4;        // segments of each child in scratch: landing, being summed, two on their way up

// The part of the array that one tree carries, in segments.
struct Part {
  Range range;
  ptrdiff_t segments;
  Range operator[](ptrdiff_t s) const {
    const Range r = Partition{range.count, size_t(segments)}[size_t(s)];
    return {range.begin + r.begin, r.count};
  }
  size_t largest() const { return segments ? (*this)[0].count : 0; }
};
enum class Trees { one, two };
Part part_of(size_t count, DType dtype, int tree, Trees trees) {
  const bool halved = trees == Trees::two && count * size_of(dtype) >= kHalve;
  const Range range = halved ? Partition{count, 2}[size_t(tree)] : tree == 0 ? Range{0, count} : Range{count, 0};
  return {range, ptrdiff_t(segments_of(range.count, dtype, kSegment))};
}

// Sends of segments 0, 1, ..., waited for in that order.
class Sends {
 public:
  explicit Sends(Net& net) : net_(net) {}
  void post(int to, ConstBytes out) { tickets_.push_back(net_.post_send(to, out)); }
  void wait_through(ptrdiff_t s) {
    for (; ptrdiff_t(done_) <= s && done_ < tickets_.size(); ++done_) net_.wait(tickets_[done_]);
  }

 private:
  Net& net_;
  std::vector<Transport::Ticket> tickets_;
  size_t done_ = 0;
};

// All ranks count the same steps. What is sent at one step is received at the next one, and a receive is posted at the
// step at which its message is sent, in the same order on both sides: first tree 0, then tree 1. So every wait is for a
// step that all others can finish without this rank, and two trees may use one link.

// One rank's part in the sum towards the root of a tree: segment s at step height + s.
class Climb {
 public:
  Climb(Net& net, const Place& place, const Part& part, Reduction reduction)
      : net_(net), place_(place), part_(part), reduction_(reduction), sent_(net) {}
  // Elements of scratch that it needs.
  size_t slots() const { return place_.is_leaf() ? 0 : 2 * kSlots * part_.largest(); }

  struct Arrays {
    ConstBuffer in;
    Buffer out;  // written at the root only
    Buffer slots;
  };
  void step(ptrdiff_t s, const Arrays& arrays) {
    if (s >= 0 && s < part_.segments) pass_on(s, arrays);
    sent_.wait_through(s - 2);  // among them the one of segment s - 3, whose slot comes next
    if (s + 1 >= 0 && s + 1 < part_.segments)
      for (int c = 0; c < 2; ++c)
        if (has(c)) received_[c] = net_.post_recv(place_.children[size_t(c)], slot(arrays, c, s + 1).span());
  }
  // Until this returns for segment s, `in` is in use there.
  void wait_through(ptrdiff_t s) { sent_.wait_through(s); }

 private:
  void pass_on(ptrdiff_t s, const Arrays& arrays) {
    const ConstBuffer own = arrays.in[part_[s]];
    if (place_.is_leaf()) return sent_.post(place_.parent, own.span());
    const std::byte* sources[3];
    size_t count = 0;
    const auto add_child = [&](int c) {
      if (!has(c)) return;
      net_.wait(received_[c]);
      sources[count++] = slot(arrays, c, s).data;
    };
    add_child(0);
    sources[count++] = own.data;
    add_child(1);
    if (place_.is_root())
      return kernels::reduce_all(arrays.out[part_[s]], {sources, count}, reduction_.op, reduction_.divisor);
    const Buffer sum = slot(arrays, 0, s);
    kernels::reduce_all(sum, {sources, count}, reduction_.op);
    sent_.post(place_.parent, sum.span());
  }
  bool has(int c) const { return place_.children[size_t(c)] != none; }
  Buffer slot(const Arrays& arrays, int c, ptrdiff_t s) const {
    return arrays.slots[{(size_t(c) * kSlots + size_t(s) % kSlots) * part_.largest(), part_[s].count}];
  }

  Net& net_;
  const Place place_;
  const Part part_;
  const Reduction reduction_;
  Sends sent_;
  Transport::Ticket received_[2] = {};
};

// One rank's part in the broadcast from the root of a tree: segment s comes `level` steps after the root had it.
class Fall {
 public:
  Fall(Net& net, const Place& place, const Part& part)
      : net_(net), place_(place), part_(part), sent_{Sends(net), Sends(net)} {}

  void step(ptrdiff_t s, Buffer x) {
    if (s >= 0 && s < part_.segments) {
      if (!place_.is_root()) net_.wait(received_);
      for (size_t c = 0; c < 2; ++c)
        if (place_.children[c] != none) sent_[c].post(place_.children[c], x[part_[s]].span());
    }
    wait_through(s - 2);
    if (!place_.is_root() && s + 1 >= 0 && s + 1 < part_.segments)
      received_ = net_.post_recv(place_.parent, x[part_[s + 1]].span());
  }
  void wait_through(ptrdiff_t s) {
    for (Sends& sent : sent_) sent.wait_through(s);
  }

 private:
  Net& net_;
  const Place place_;
  const Part part_;
  Sends sent_[2];
  Transport::Ticket received_ = 0;
};

}  // namespace

void tree_allreduce(Net& net, ConstBuffer in, Buffer out, Reduction reduction, Scratch& scratch) {
  if (net.size() == 1) return alone(in, out, reduction);
  const pattern::DoubleTree trees{net.rank(), net.size()};
  const Place place[2] = {trees.place(0), trees.place(1)};
  const Part part[2] = {part_of(in.count, in.dtype, 0, Trees::two), part_of(in.count, in.dtype, 1, Trees::two)};
  Climb climb[2] = {{net, place[0], part[0], reduction}, {net, place[1], part[1], reduction}};
  Fall fall[2] = {{net, place[0], part[0]}, {net, place[1], part[1]}};
  // Only one of the two needs slots: a rank is interior in one tree at most.
  const Climb::Arrays arrays{in, out, borrow(scratch, std::max(climb[0].slots(), climb[1].slots()), in.dtype)};

  // Before a step, segment s of a tree is summed at all places of height < step - s, and complete at all places of
  // level < step - s - depth.
  for (ptrdiff_t step = 0; step < 2 * place[0].depth + part[0].segments; ++step)
    for (int t = 0; t < 2; ++t) {
      const ptrdiff_t falling = step - place[t].depth - place[t].level;
      climb[t].step(step - place[t].height, arrays);
      climb[t].wait_through(falling + 1);  // received in place of what was sent, if in place
      fall[t].step(falling, out);
    }
  for (int t = 0; t < 2; ++t) {
    climb[t].wait_through(part[t].segments);
    fall[t].wait_through(part[t].segments);
  }
}

void tree_reduce(Net& net, ConstBuffer in, Buffer out, int root, Reduction reduction, Scratch& scratch) {
  if (net.size() == 1) return alone(in, out, reduction);
  const Trees trees = net.size() == 2 ? Trees::one : Trees::two;
  const pattern::RootedDoubleTree tree{net.rank(), net.size(), root};
  const Place place[2] = {tree.place(0), tree.place(1)};
  const Part part[2] = {part_of(in.count, in.dtype, 0, trees), part_of(in.count, in.dtype, 1, trees)};
  Climb climb[2] = {{net, place[0], part[0], reduction}, {net, place[1], part[1], reduction}};
  const size_t slots[2] = {climb[0].slots(), climb[1].slots()};
  const Buffer memory = borrow(scratch, slots[0] + slots[1], in.dtype);
  const Climb::Arrays arrays[2] = {{in, out, memory[{0, slots[0]}]}, {in, out, memory[{slots[0], slots[1]}]}};

  for (ptrdiff_t step = 0; step < place[0].depth + part[0].segments; ++step)
    for (int t = 0; t < 2; ++t) climb[t].step(step - place[t].height, arrays[t]);
  for (int t = 0; t < 2; ++t) climb[t].wait_through(part[t].segments);
}

void tree_broadcast(Net& net, Buffer x, int root) {
  if (net.size() == 1) return;
  const Trees trees = net.size() == 2 ? Trees::one : Trees::two;
  const pattern::RootedDoubleTree tree{net.rank(), net.size(), root};
  const Place place[2] = {tree.place(0), tree.place(1)};
  const Part part[2] = {part_of(x.count, x.dtype, 0, trees), part_of(x.count, x.dtype, 1, trees)};
  Fall fall[2] = {{net, place[0], part[0]}, {net, place[1], part[1]}};

  for (ptrdiff_t step = 0; step < place[0].depth + part[0].segments; ++step)
    for (int t = 0; t < 2; ++t) fall[t].step(step - place[t].level, x);
  for (int t = 0; t < 2; ++t) fall[t].wait_through(part[t].segments);
}

}  // namespace pycoll::algo
