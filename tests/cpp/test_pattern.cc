// The properties that the algorithms rest on, for P = 1 ... 130.
#include <numeric>
#include <set>

#include "check.h"
#include "pattern/circulant.h"
#include "pattern/dissemination.h"
#include "pattern/hierarchy.h"
#include "pattern/hypercube.h"
#include "pattern/ring.h"
#include "pattern/rotation.h"
#include "pattern/tree.h"

using namespace pycoll;
using namespace pycoll::pattern;

namespace {

constexpr int kMostRanks = 130;

void sweep(const std::function<void(int size)>& one) {
  for (int size = 1; size <= kMostRanks; ++size) one(size);
}
void sweep_ranks(const std::function<void(int rank, int size)>& one) {
  sweep([&](int size) {
    for (int rank = 0; rank < size; ++rank) one(rank, size);
  });
}
int ceil_log2(int x) {
  int log = 0;
  while ((1 << log) < x) ++log;
  return log;
}

// Pure enough for the compiler.
static_assert(Ring{0, 5}.prev() == 4 && Ring{2, 5}.chunk(4) == 2);
static_assert(Circulant{0, 22}.skip(1) == 11 && Circulant{0, 22}.skip(2) == 6 && Circulant{0, 22}.skip(5) == 1);
static_assert(Hypercube{6, 7}.core() == 4 && Hypercube{6, 7}.corner() == 3 && Hypercube{5, 7}.is_extra());
static_assert(Dissemination{6, 7}.above(1) == 1 && Dissemination{6, 7}.blocks(2) == 3);
static_assert(Binomial{5, 8, 1}.parent() == 1 && Binomial{5, 8, 1}.span() == 4);
static_assert(DoubleTree{3, 8}.place(0).is_root() == false && DoubleTree{7, 8}.place(0).is_root());

TEST("pattern: a ring's chunk goes on to the next rank, and ends with its owner") {
  sweep_ranks([](int rank, int size) {
    const Ring ring{rank, size}, next{ring.next(), size};
    CHECK(next.prev() == rank, rank, " of ", size);
    for (int step = 0; step < 2 * ring.steps(); ++step)
      CHECK(ring.chunk(step) == next.chunk(step + 1), "step ", step, " of rank ", rank, " of ", size);
    CHECK(ring.chunk(ring.steps()) == rank, rank, " of ", size);
    std::set<int> reduced, gathered{rank};
    for (int step = 0; step < ring.steps(); ++step) {
      reduced.insert(ring.chunk(step));
      gathered.insert(ring.chunk(ring.steps() + step + 1));
    }
    CHECK(int(reduced.size()) == size - 1 && !reduced.contains(rank), rank, " of ", size);
    CHECK(int(gathered.size()) == size, rank, " of ", size);
  });
}

TEST("pattern: in each turn of a rotation, who is sent to receives from the sender, and all peers come once") {
  for (int size = 1; size <= 17; ++size)
    for (int rank = 0; rank < size; ++rank) {
      const pattern::Rotation mine{rank, size};
      std::vector<bool> met(size_t(size), false);
      met[size_t(rank)] = true;
      for (int distance = 1; distance < size; ++distance) {
        const int to = mine.to(distance);
        CHECK(!met[size_t(to)]);
        met[size_t(to)] = true;
        CHECK((pattern::Rotation{to, size}.from(distance)) == rank);
        CHECK(mine.distance(mine.from(distance)) == distance);
      }
    }
}

TEST("pattern: a circulant's skips halve, and every contribution reaches the owner once") {
  sweep([](int size) {
    const Circulant any{0, size};
    CHECK(any.steps() == ceil_log2(size), size);
    CHECK(any.skip(0) == size && any.skip(any.steps()) == 1, size);
    for (int step = 0; step < any.steps(); ++step) {
      CHECK(any.skip(step + 1) == (any.skip(step) + 1) / 2, size, " at ", step);
      CHECK(any.blocks(step) <= any.skip(step + 1), "more than is kept: ", size, " at ", step);
      for (int rank = 0; rank < size; ++rank) {
        const Circulant graph{rank, size}, above{graph.above(step), size};
        CHECK(above.below(step) == rank, rank, " of ", size);
      }
    }
    // Weight of the rank `block` below the owner of a chunk: how often its contribution is in the owner's sum at the
    // end.
    std::vector<int> weight(static_cast<size_t>(size), 0);
    std::vector<std::vector<int>> held(static_cast<size_t>(size), weight);
    for (int i = 0; i < size; ++i) held[size_t(i)][size_t(i)] = 1;
    for (int step = 0; step < any.steps(); ++step)
      for (int i = 0; i < any.blocks(step); ++i)
        for (size_t from = 0; from < size_t(size); ++from)
          held[size_t(i)][from] += held[size_t(i + any.skip(step + 1))][from];
    for (const int times : held[0]) CHECK(times == 1, size);
  });
}

TEST("pattern: dissemination reaches all") {
  sweep([](int size) {
    std::vector<std::set<int>> known(static_cast<size_t>(size));
    for (int rank = 0; rank < size; ++rank) known[size_t(rank)] = {rank};
    int blocks = 1;
    for (int step = 0; step < Dissemination{0, size}.steps(); ++step) {
      const auto before = known;
      for (int rank = 0; rank < size; ++rank) {
        const Dissemination graph{rank, size};
        known[size_t(rank)].insert(before[size_t(graph.below(step))].begin(), before[size_t(graph.below(step))].end());
        CHECK((Dissemination{graph.above(step), size}.below(step) == rank), rank, " of ", size);
      }
      blocks += Dissemination{0, size}.blocks(step);
    }
    CHECK(blocks == size, size);
    for (const auto& ranks : known) CHECK(int(ranks.size()) == size, size);
  });
}

TEST("pattern: a hypercube's corners stand for contiguous ranks in order") {
  sweep([](int size) {
    const Hypercube any{0, size};
    CHECK(any.core() <= size && size < 2 * any.core() && any.core() == 1 << any.dimensions(), size);
    int corner = 0;
    for (int rank = 0; rank < size; ++rank) {
      const Hypercube cube{rank, size};
      if (cube.is_extra()) {
        const Hypercube partner{cube.fold_partner(), size};
        CHECK(!partner.is_extra() && partner.rank == rank - 1, rank, " of ", size);
        continue;
      }
      CHECK(cube.corner() == corner++ && cube.rank_of(cube.corner()) == rank, rank, " of ", size);
      for (int d = 0; d < cube.dimensions(); ++d) {
        const Hypercube neighbour{cube.neighbour(d), size};
        CHECK(neighbour.neighbour(d) == rank && !neighbour.is_extra(), rank, " of ", size);
        CHECK(cube.is_upper(d) == (rank > neighbour.rank), rank, " of ", size);
      }
    }
    CHECK(corner == any.core(), size);
  });
}

TEST("pattern: a binomial tree's children have their parent, and their spans fill its own") {
  sweep([](int size) {
    for (const int root : {0, size / 2, size - 1})
      for (int rank = 0; rank < size; ++rank) {
        const Binomial tree{rank, size, root};
        int under = 1;
        for (int c = 0; c < tree.children(); ++c) {
          const Binomial child{tree.child(c), size, root};
          CHECK(child.parent() == rank && child.place() == tree.place() + under, rank, " of ", size);
          under += child.span();
        }
        CHECK(under == tree.span(), rank, " of ", size);
      }
    CHECK((Binomial{size / 2, size, size / 2}.span() == size), size);
  });
}

// Checks that the places are one tree, and returns the ranks in order: first child's, own, second child's.
template <class PlaceOf>
std::vector<int> in_order(int rank, int level, const PlaceOf& place_of) {
  const Place place = place_of(rank);
  CHECK(place.level == level, "rank ", rank, " at level ", level);
  CHECK(place.level + place.height <= place.depth, "rank ", rank);
  std::vector<int> ranks;
  int height = 0;
  for (size_t c = 0; c < 2; ++c) {
    if (c == 1) ranks.push_back(rank);
    if (place.children[c] == none) continue;
    const Place child = place_of(place.children[c]);
    CHECK(child.parent == rank, "child ", place.children[c], " of ", rank);
    height = std::max(height, child.height + 1);
    const auto below = in_order(place.children[c], level + 1, place_of);
    ranks.insert(ranks.end(), below.begin(), below.end());
  }
  CHECK(place.height == height, "rank ", rank, " has height ", place.height, ", not ", height);
  return ranks;
}

TEST("pattern: both trees span all ranks in order, and every rank is interior in at most one") {
  sweep([](int size) {
    for (int tree = 0; tree < 2; ++tree) {
      const auto place_of = [&](int rank) { return DoubleTree{rank, size}.place(tree); };
      int roots = 0;
      for (int rank = 0; rank < size; ++rank) {
        if (!place_of(rank).is_root()) continue;
        ++roots;
        const auto order = in_order(rank, 0, place_of);
        CHECK(int(order.size()) == size, "tree ", tree, " of ", size, " spans ", order.size());
        for (int i = 0; i < size; ++i) CHECK((order[size_t(i)] + tree) % size == i, "tree ", tree, " of ", size);
        CHECK(place_of(rank).height == place_of(rank).depth && 1 << place_of(rank).depth <= size, size);
      }
      CHECK(roots == 1, "tree ", tree, " of ", size);
    }
    for (int rank = 0; rank < size; ++rank) {
      const DoubleTree trees{rank, size};
      CHECK(trees.place(0).is_leaf() || trees.place(1).is_leaf(), rank, " of ", size);
    }
  });
}

TEST("pattern: a rooted double tree hangs both trees of the others under the root") {
  sweep([](int size) {
    if (size == 1) return;
    for (const int root : {0, size / 2, size - 1})
      for (int tree = 0; tree < 2; ++tree) {
        const auto place_of = [&](int rank) { return RootedDoubleTree{rank, size, root}.place(tree); };
        CHECK(place_of(root).is_root(), size);
        const auto order = in_order(root, 0, place_of);
        CHECK((std::set<int>(order.begin(), order.end()).size() == size_t(size)), size);
        CHECK(order[0] == root, "sums begin with the root");
        for (int i = 1; i < size - 1; ++i) {  // then around the ring, tree 1 from the last one on
          const int other = (order[size_t(i)] + size - root - 1) % size;
          CHECK((other + tree) % (size - 1) == i - 1, "tree ", tree, " of ", size, " from root ", root);
        }
        for (int rank = 0; rank < size; ++rank) {
          const RootedDoubleTree trees{rank, size, root};
          CHECK(rank == root || trees.place(0).is_leaf() || trees.place(1).is_leaf(), rank, " of ", size);
        }
      }
  });
}

TEST("pattern: lanes exist on every node, and their chunks fill the array") {
  const Hierarchy hierarchy{{7, 7, 3, 7, 3, 9, 9, 9, 9}};
  CHECK((hierarchy.nodes() == std::vector<int>{7, 3, 9}), "nodes in the order of first ranks");
  CHECK((hierarchy.members(3) == std::vector<int>{2, 4}) && hierarchy.lanes() == 2, hierarchy.lanes());
  CHECK((hierarchy.across(1) == std::vector<int>{1, 4, 6}), "second ranks of nodes");
  for (const size_t count : {0, 1, 7, 100}) {
    const Layout layout = lane_layout(count, 4, 3);
    CHECK(layout.size() == 4 && layout[3].count == 0 && total_of(layout) == count, count);
    for (size_t i = 0; i + 1 < layout.size(); ++i) CHECK(layout[i].end() == layout[i + 1].begin, count);
  }
}

}  // namespace

int main(int argc, char** argv) {
  return check::run(argc, argv);
}
