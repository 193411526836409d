// Hypercube on the largest power of two of the ranks; the ranks beyond it fold into a neighbour first and unfold last.
#pragma once
#include <bit>

namespace pycoll::pattern {

struct Hypercube {
  int rank, size;

  // Ranks of the hypercube proper. Ranks 2i and 2i + 1 fold into one corner for i < rest(), so that corners stay in
  // rank order: corner c and its neighbours stand for contiguous ranks, lower ranks in lower corners.
  constexpr int core() const { return int(std::bit_floor(unsigned(size))); }
  constexpr int rest() const { return size - core(); }
  constexpr int dimensions() const { return int(std::bit_width(unsigned(core()))) - 1; }

  constexpr bool folds() const { return rank < 2 * rest(); }
  constexpr bool is_extra() const { return folds() && rank % 2 == 1; }  // hands its data over, and gets the result
  constexpr int fold_partner() const { return rank ^ 1; }

  constexpr int corner() const { return folds() ? rank / 2 : rank - rest(); }
  constexpr int rank_of(int corner) const { return corner < rest() ? 2 * corner : corner + rest(); }
  constexpr bool is_upper(int dimension) const { return corner() >> dimension & 1; }
  constexpr int neighbour(int dimension) const { return rank_of(corner() ^ int(1u << dimension)); }
};

}  // namespace pycoll::pattern
