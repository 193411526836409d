// Rotation: in turn `distance` every rank sends to the one so far above it and receives from the one so far below, so
// that nobody is sent to by all at once.
#pragma once

namespace pycoll::pattern {

struct Rotation {
  int rank, size;

  constexpr int to(int distance) const { return (rank + distance) % size; }
  constexpr int from(int distance) const { return (rank + size - distance) % size; }
  // The distance at which `peer` is received from: from(distance(peer)) == peer, 1 to size - 1.
  constexpr int distance(int peer) const { return (rank + size - peer) % size; }
};

}  // namespace pycoll::pattern
