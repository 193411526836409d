// Ring: every rank sends to the next one and receives from the one before.
#pragma once

namespace pycoll::pattern {

struct Ring {
  int rank, size;

  constexpr int next() const { return (rank + 1) % size; }
  constexpr int prev() const { return (rank + size - 1) % size; }
  // A reduce-scatter is steps [0, size - 1), an allgather steps [size - 1, 2 size - 2).
  constexpr int steps() const { return size - 1; }
  // Chunk sent at `step`. The one received is chunk(step + 1), and is sent next. chunk(steps()) is the own one.
  constexpr int chunk(int step) const { return (rank + 2 * size - 1 - step % size) % size; }
};

}  // namespace pycoll::pattern
