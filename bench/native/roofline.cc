// What the memory allows an allreduce of symmetric arrays: every rank reads its share of all ranks' arrays and writes
// the sum to its share of all of them, the same bytes moved by the same cores with no synchronisation at all.
// "roofline RANKS"; memory is "ordinary" or "streaming", which are the stores; or "met": ordinary stores, and flags
// exchanged before and after, which is the least that a real call can do.
#include <sys/mman.h>

#include <cstdlib>

#include "flags.h"
#include "forked.h"
#include "vectors.h"

namespace {

constexpr int kRanksMost = 64;
constexpr size_t kHugePage = size_t(2) << 20;
constexpr size_t kStride = (size_t(256) << 20) + kHugePage;  // an array a rank; pages not touched cost nothing

char* heap;
Flags* flags;
Meeting* meeting;

float* array_of(int rank) {
  return reinterpret_cast<float*>(heap + size_t(rank) * kStride);
}

template <void (*put)(float*, Vector), int kSize>
void sum_vectors(float* const* arrays, size_t begin, size_t end, int size) {
  const int ranks = kSize ? kSize : size;
  for (size_t i = begin; i < end; i += kLanes) {
    Vector sum = load(arrays[0] + i);
    for (int r = 1; r < ranks; ++r) sum = add(sum, load(arrays[r] + i));
    for (int r = 0; r < ranks; ++r) put(arrays[r] + i, sum);
  }
}

template <void (*put)(float*, Vector)>
void sum_share(const block* b) {
  float* arrays[kRanksMost];
  for (int r = 0; r < b->size; ++r) arrays[r] = array_of(r);
  // Whole cache lines a rank, the rest to the last.
  const size_t lines = b->out_count / kLine, rank = size_t(b->rank), size = size_t(b->size);
  const size_t begin = lines * rank / size * kLine, end = lines * (rank + 1) / size * kLine;
  if (b->size == 2)
    sum_vectors<put, 2>(arrays, begin, end, 2);
  else
    sum_vectors<put, 0>(arrays, begin, end, b->size);
  if (b->rank == b->size - 1)
    for (size_t i = end; i < b->out_count; ++i) {
      float sum = 0;
      for (int r = 0; r < b->size; ++r) sum += arrays[r][i];
      for (int r = 0; r < b->size; ++r) arrays[r][i] = sum;
    }
  _mm_sfence();
}

void call(const block* b) {
  const bool met = b->memory[0] == 'm';
  if (met) flags->meet(b->rank, b->size);
  if (b->memory[0] == 's')
    sum_share<stream>(b);
  else
    sum_share<store>(b);
  if (met) flags->meet(b->rank, b->size);
}

void* allocate(const block* b, int, size_t bytes) {
  return bytes <= kStride && b->collective == ALLREDUCE ? array_of(b->rank) : nullptr;
}

void release(const block*, int, void* memory, size_t bytes) {
  madvise(memory, (bytes + 4095) / 4096 * 4096, MADV_REMOVE);
}

void barrier() {
  meeting->wait();
}

}  // namespace

int main(int argc, char** argv) {
  const int size = argc == 2 ? std::atoi(argv[1]) : 0;
  if (size < 1 || size > kRanksMost) {
    fprintf(stderr, "usage: roofline RANKS (1 to %d)\n", kRanksMost);
    return 2;
  }
  const size_t bytes = size_t(size) * kStride;
  const int fd = memfd_create("roofline", MFD_CLOEXEC);
  void* const at = fd < 0 || ftruncate(fd, off_t(bytes)) != 0
                       ? MAP_FAILED
                       : mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  flags = Flags::create();
  meeting = Meeting::create(size);
  if (at == MAP_FAILED || !flags || !meeting) {
    perror("roofline: shared memory");
    return 1;
  }
  madvise(at, bytes, MADV_HUGEPAGE);
  heap = static_cast<char*>(at);
  return fork_ranks(size, [&](int rank) {
    const char* const version = "the same bytes, unsynchronised";
    const contestant self{rank, size, version, allocate, release, prepare_nothing, call, barrier};
    serve(&self);
  });
}
