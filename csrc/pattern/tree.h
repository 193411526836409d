// Trees: binomial (gather, scatter) and the double binary tree (allreduce, reduce, broadcast).
#pragma once
#include <algorithm>
#include <array>
#include <bit>

namespace pycoll::pattern {

// Binomial tree of the ranks counted from the root: place p stands above places [p, p + span()).
struct Binomial {
  int rank, size, root;

  constexpr int place() const { return (rank + size - root) % size; }
  constexpr int rank_of(int place) const { return (place + root) % size; }
  constexpr bool is_root() const { return rank == root; }
  constexpr int parent() const { return rank_of(place() & (place() - 1)); }
  constexpr int children() const { return int(std::bit_width(unsigned(span() - 1))); }
  constexpr int child(int i) const { return rank_of(place() + int(1u << i)); }
  constexpr int span() const { return std::min(is_root() ? size : place() & -place(), size - place()); }
};

// Where one rank stands in one tree. none: no such neighbour.
inline constexpr int none = -1;
struct Place {
  int parent;
  std::array<int, 2>
      children;  // data of children[0] comes before the own data in the order of sums, children[1]'s after
  int height;    // edges down to the farthest leaf below
  int level;     // edges up to the root
  int depth;     // of the whole tree
  constexpr bool is_leaf() const { return height == 0; }
  constexpr bool is_root() const { return parent == none; }
};

// The in-order binary tree of indices [0, size): even indices are leaves, all others have two children, or one if the
// last. With i = index + 1, a node stands where the lowest set bit of i says, as in a Fenwick tree cut off at `size`.
struct InOrderTree {
  int size;

  constexpr int depth() const { return int(std::bit_width(unsigned(size))) - 1; }
  constexpr int height(int index) const { return std::countr_zero(unsigned(index + 1)); }
  constexpr int parent(int index) const {
    const int i = index + 1, bit = i & -i;
    if (i == int(std::bit_floor(unsigned(size)))) return none;
    const int full = (i ^ bit) | (bit << 1);
    return (full <= size ? full : i ^ bit) - 1;
  }
  constexpr int left(int index) const { return height(index) == 0 ? none : index - (1 << (height(index) - 1)); }
  constexpr int right(int index) const {
    for (int h = height(index) - 1; h >= 0; --h)
      if (index + (1 << h) < size) return index + (1 << h);
    return none;
  }
  constexpr int level(int index) const {
    int edges = 0;
    for (int above = parent(index); above != none; above = parent(above)) ++edges;
    return edges;
  }
};

// Two trees on the same ranks, each for half of the data: tree 1 is tree 0 turned by one rank, which makes every rank a
// leaf in one and interior in at most the other. Sanders, Speck and Träff 2009, "Two-tree algorithms for full bandwidth
// broadcast, reduction and scan".
struct DoubleTree {
  int rank, size;

  constexpr int index(int tree) const { return (rank + tree) % size; }
  constexpr int rank_of(int index, int tree) const { return index == none ? none : (index - tree + size) % size; }
  constexpr Place place(int tree) const {
    const InOrderTree shape{size};
    const int i = index(tree);
    return {rank_of(shape.parent(i), tree),
            {rank_of(shape.left(i), tree), rank_of(shape.right(i), tree)},
            shape.height(i),
            shape.level(i),
            shape.depth()};
  }
};

// The same with a given rank above both trees; the others form the trees.
struct RootedDoubleTree {
  int rank, size, root;

  constexpr int rank_of(int other) const { return other == none ? none : (other + root + 1) % size; }
  constexpr Place place(int tree) const {
    const int others = size - 1;
    const int depth = InOrderTree{others}.depth() + 1;
    if (rank == root) {
      const int top = int(std::bit_floor(unsigned(others))) - 1;
      return {none, {none, rank_of(DoubleTree{0, others}.rank_of(top, tree))}, depth, 0, depth};
    }
    const Place p = DoubleTree{(rank + size - root - 1) % size, others}.place(tree);
    const int parent = p.is_root() ? root : rank_of(p.parent);
    return {parent, {rank_of(p.children[0]), rank_of(p.children[1])}, p.height, p.level + 1, depth};
  }
};

}  // namespace pycoll::pattern
