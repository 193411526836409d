// Gather and scatter on a binomial tree: few messages at the root, for short chunks. Thakur, Rabenseifner and Gropp
// 2005, "Optimization of collective communication operations in MPICH".
//
// Cost of P ranks, d = floor(log2 P). Places count from the root; place p has those of [p, p + 2^z) under it, z being
// the trailing zeros of p:
//   gather   d rounds   all but the root send the chunks of their own place and of those under it
//   scatter  d rounds   all send the chunks of the places under them
#include <algorithm>

#include "algo/collectives.h"
#include "algo/local.h"
#include "pattern/tree.h"

namespace pycoll::algo {
namespace {

// The chunks under one place of a binomial tree: from the own one up, around the end of the array.
struct Subtree {
  pattern::Binomial tree;
  const Layout& layout;

  std::array<Range, 2> child(int c) const {
    const int rank = tree.child(c);
    return arc_of(layout, rank, pattern::Binomial{rank, tree.size, tree.root}.span());
  }
  // Elements of the own chunk and of the first `children` subtrees.
  size_t elements(int children) const {
    return count_of(arc_of(layout, tree.rank, std::min(1 << children, tree.span())));
  }
  Range range(int c) const { return {elements(c), elements(c + 1) - elements(c)}; }
  // Elements of the one child of the root that goes around the end, if there is one.
  size_t around() const {
    for (int c = 0; c < tree.children(); ++c)
      if (child(c)[1].count) return count_of(child(c));
    return 0;
  }
};

}  // namespace

void tree_gather(Net& net, ConstBuffer in, Buffer out, int root, const Layout& layout, Scratch& scratch) {
  const Subtree subtree{{net.rank(), net.size(), root}, layout};
  const pattern::Binomial& tree = subtree.tree;
  if (tree.children() == 0 && !tree.is_root()) return net.send(tree.parent(), in.span());

  // Children's chunks land where they belong at the root, elsewhere in scratch behind the own chunk.
  const Buffer spare = borrow(scratch, tree.is_root() ? subtree.around() : subtree.elements(tree.children()), in.dtype);
  const auto place_of = [&](int c) {
    return tree.is_root() ? landing(out, subtree.child(c), spare) : spare[subtree.range(c)];
  };
  std::vector<Transport::Ticket> tickets;
  for (int c = 0; c < tree.children(); ++c) tickets.push_back(net.post_recv(tree.child(c), place_of(c).span()));
  copy_into(tree.is_root() ? out[layout[size_t(root)]] : spare[{0, in.count}], in);
  for (const auto ticket : tickets) net.wait(ticket);
  if (!tree.is_root()) return net.send(tree.parent(), spare.span());
  for (int c = 0; c < tree.children(); ++c) unpack(out, subtree.child(c), place_of(c));
}

void tree_scatter(Net& net, ConstBuffer in, Buffer out, int root, const Layout& layout, Scratch& scratch) {
  const Subtree subtree{{net.rank(), net.size(), root}, layout};
  const pattern::Binomial& tree = subtree.tree;
  if (tree.children() == 0 && !tree.is_root()) return net.recv(tree.parent(), out.span());

  const Buffer spare =
      borrow(scratch, tree.is_root() ? subtree.around() : subtree.elements(tree.children()), out.dtype);
  if (!tree.is_root()) net.recv(tree.parent(), spare.span());
  std::vector<Transport::Ticket> tickets;
  // The largest subtree first: it has the longest way to go.
  for (int c = tree.children() - 1; c >= 0; --c) {
    const ConstBuffer given = tree.is_root() ? packed(in, subtree.child(c), spare) : spare[subtree.range(c)];
    tickets.push_back(net.post_send(tree.child(c), given.span()));
  }
  copy_into(out, tree.is_root() ? in[layout[size_t(root)]] : spare[{0, out.count}]);
  for (const auto ticket : tickets) net.wait(ticket);
}

}  // namespace pycoll::algo
