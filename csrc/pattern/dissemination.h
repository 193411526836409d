// Dissemination: at step t a rank knows what min(2^t, P) ranks knew at the start. Hensgen, Finkel and Manber 1988;
// Bruck et al. 1997, "Efficient algorithms for all-to-all communications", for the allgather.
#pragma once
#include <algorithm>
#include <bit>

namespace pycoll::pattern {

struct Dissemination {
  int rank, size;

  constexpr int steps() const { return int(std::bit_width(unsigned(size - 1))); }
  constexpr int distance(int step) const { return int(1u << step); }
  constexpr int above(int step) const { return (rank + distance(step)) % size; }
  constexpr int below(int step) const { return (rank + size - distance(step)) % size; }
  // Blocks that an allgather passes on at `step`: all that it holds, the last time as many as are missing.
  constexpr int blocks(int step) const { return std::min(distance(step), size - distance(step)); }
};

}  // namespace pycoll::pattern
