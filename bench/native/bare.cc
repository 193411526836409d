// The barest allreduce of private arrays: blocks are copied into memory that the ranks share, flags exchanged, and the
// peers' blocks added. Nothing is compared, written down, or waited for with a deadline: what pycoll's private path can
// at best take. "bare RANKS"; memory is "ordinary" or "streaming", which are the stores into shared memory.
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>

#include "flags.h"
#include "forked.h"
#include "vectors.h"

namespace {

constexpr size_t kBlock = (64 << 10) / sizeof(float);  // elements shown at once
constexpr size_t kRing = (2 << 20) / sizeof(float);    // of a rank, so that no cache still holds what is written next

float* stages;
Flags* flags;
Meeting* meeting;
size_t next_place = 0;

float* stage_of(int rank) {
  return stages + size_t(rank) * kRing;
}

size_t whole_lines(size_t count) {
  return (count + kLine - 1) / kLine * kLine;
}

void show(const block* b, size_t place, const float* from, size_t count) {
  float* const to = stage_of(b->rank) + place;
  if (b->memory[0] != 's') {
    memcpy(to, from, count * sizeof(float));
    return;
  }
  const size_t vectors = count / kLanes * kLanes;
  for (size_t i = 0; i < vectors; i += kLanes) stream(to + i, load(from + i));
  memcpy(to + vectors, from + vectors, (count - vectors) * sizeof(float));
  _mm_sfence();
}

void add_peer(const float* from, float* to, size_t count) {
  const size_t vectors = count / kLanes * kLanes;
  for (size_t i = 0; i < vectors; i += kLanes) store(to + i, add(load(to + i), load(from + i)));
  for (size_t i = vectors; i < count; ++i) to[i] += from[i];
}

void call(const block* b) {
  const size_t count = b->out_count, most = std::min(kBlock, count), blocks = (count + most - 1) / most;
  size_t shown = 0;
  for (size_t n = 0; n <= blocks; ++n) {
    if (n > 0) flags->meet(b->rank, b->size);
    const size_t place = next_place + whole_lines(most) > kRing ? 0 : next_place;
    if (n < blocks) {
      show(b, place, b->in + n * most, std::min(most, count - n * most));
      next_place = place + whole_lines(most);
    }
    for (int peer = 0; n > 0 && peer < b->size; ++peer)
      if (peer != b->rank)
        add_peer(stage_of(peer) + shown, b->out + (n - 1) * most, std::min(most, count - (n - 1) * most));
    shown = place;
  }
}

void barrier() {
  meeting->wait();
}

}  // namespace

int main(int argc, char** argv) {
  const int size = argc == 2 ? std::atoi(argv[1]) : 0;
  if (size < 1 || size > Flags::kRanksMost) {
    fprintf(stderr, "usage: bare RANKS (1 to %d)\n", Flags::kRanksMost);
    return 2;
  }
  const size_t bytes = size_t(size) * kRing * sizeof(float);
  void* const at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  flags = Flags::create();
  meeting = Meeting::create(size);
  if (at == MAP_FAILED || !flags || !meeting) {
    perror("bare: shared memory");
    return 1;
  }
  stages = static_cast<float*>(at);
  return fork_ranks(size, [&](int rank) {
    const contestant self{rank, size,   "copy, flag, add", allocate_private, release_private, prepare_nothing,
                          call, barrier};
    serve(&self);
  });
}
