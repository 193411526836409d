// The C++ contestant of pycoll: "pycoll_rank RANKS" forks its ranks. Memory is "private" or "symmetric".
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <optional>

#include "comm/communicator.h"
#include "comm/lay_out.h"
#include "forked.h"
#include "transport/shm.h"

namespace {

using namespace pycoll;

constexpr size_t kHugePage = size_t(2) << 20;
constexpr size_t kArrayMost = size_t(256) << 20;  // bytes of an array in symmetric memory
constexpr size_t kStride =
    2 * (kArrayMost + kHugePage);  // an input and an output a rank; pages not touched cost nothing

struct Common {  // in memory that the ranks share
  ProcessId ids[64];
};

std::unique_ptr<Communicator> comm;
std::shared_ptr<Segment> heap;
Call call;

bool symmetric(const block* b) {
  return std::string_view(b->memory) == "symmetric";
}

void* allocate(const block* b, int which, size_t bytes) {
  if (!symmetric(b)) return allocate_private(b, which, bytes);
  if (bytes > kArrayMost) return nullptr;
  return heap->data() + size_t(b->rank) * kStride + size_t(which) * (kStride / 2);
}

void release(const block* b, int which, void* memory, size_t bytes) {
  if (!symmetric(b)) return release_private(b, which, memory, bytes);
  madvise(memory, (bytes + 4095) / 4096 * 4096, MADV_REMOVE);  // or 30 contestants' arrays fill the machine
}

Kind kind_of(collective collective) {
  switch (collective) {
    case ALLREDUCE: return Kind::allreduce;
    case REDUCE_SCATTER: return Kind::reduce_scatter;
    case ALLGATHER: return Kind::allgather;
    case BROADCAST: return Kind::broadcast;
    case ALLTOALL: return Kind::alltoall;
  }
  return Kind::none;
}

void prepare(const block* b) {
  call = Call();
  call.kind = kind_of(b->collective);
  call.in = {reinterpret_cast<const std::byte*>(b->in), b->in_count, DType::f32};
  call.out = {reinterpret_cast<std::byte*>(b->out), b->out_count, DType::f32};
  lay_out(call, b->rank, b->size, std::nullopt, std::nullopt);
}

// What is measured.
void run(const block*) {
  comm->run(call);
}

void barrier() {
  Call meeting;
  meeting.kind = Kind::barrier;
  comm->run(meeting);
}

int cores() {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

}  // namespace

int main(int argc, char** argv) {
  const int size = argc == 2 ? std::atoi(argv[1]) : 0;
  if (size < 1 || size > 64) {
    fprintf(stderr, "usage: pycoll_rank RANKS (1 to 64)\n");
    return 2;
  }
  try {
    // Made before the ranks are, which so have it mapped.
    const auto common = Segment::create(sizeof(Common));
    const auto node = Segment::create(ShmTransport::segment_bytes(size));
    heap = Segment::create(size_t(size) * kStride);
    Meeting* const meeting = Meeting::create(size);
    PYCOLL_CHECK_AS(TransportError, meeting, "no shared memory");
    return fork_ranks(size, [&](int rank) {
      auto& ids = reinterpret_cast<Common*>(common->data())->ids;
      ids[rank] = ProcessId::self();
      meeting->wait();
      std::vector<Member> members;
      for (int peer = 0; peer < size; ++peer) members.push_back({peer, "this machine", ids[peer]});
      const auto transport = std::make_shared<ShmTransport>(node, rank, members, cores());
      comm = std::make_unique<Communicator>(transport, nullptr, Options{});
      comm->add_region(1, heap, kStride);
      const contestant self{rank, size, "pycoll " PYCOLL_VERSION, allocate, release, prepare, run, barrier};
      serve(&self);
      comm->close();
    });
  } catch (const std::exception& error) {
    fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
