// Circulant graph whose skips halve: ceil(log2 P) steps for any number of ranks P. Träff 2024, arXiv:2410.14234.
#pragma once
#include <bit>

namespace pycoll::pattern {

struct Circulant {
  int rank, size;

  constexpr int steps() const { return int(std::bit_width(unsigned(size - 1))); }
  // ceil(size / 2^step): from size at step 0 down to 1 at steps().
  constexpr int skip(int step) const { return int((unsigned(size - 1) >> step) + 1); }
  // The partners at `step`: above() in a reduce-scatter gets blocks [skip(step + 1), skip(step)) of this rank, counted
  // from its own chunk upwards around the ring, as below() sends this rank its own blocks [0, blocks(step)).
  constexpr int above(int step) const { return (rank + skip(step + 1)) % size; }
  constexpr int below(int step) const { return (rank + size - skip(step + 1)) % size; }
  constexpr int blocks(int step) const { return skip(step) - skip(step + 1); }
};

}  // namespace pycoll::pattern
