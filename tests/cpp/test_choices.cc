// Whatever a probe of the machine chooses, and whatever the user forces, results are the same bits.
#include <cstdlib>

#include "check.h"
#include "threads.h"

using namespace pycoll;

namespace {

constexpr int kRanks = 2;

float input(int rank, size_t i) {
  return float(int(i * 37 + size_t(rank) * 11) % 101) * 0.25f - 7.0f;
}

// One operation with private arrays on every rank; throws where a result is wrong.
void run(Communicator& comm, Kind kind, size_t count, ReduceOp op) {
  const Partition chunks{count, kRanks};
  const Range own = chunks[size_t(comm.rank())];
  const float factor = op == ReduceOp::premul_sum ? 0.5f : 1.0f;
  const bool gathers = kind == Kind::allgather;
  const size_t received = kind == Kind::reduce_scatter ? own.count : kind == Kind::alltoall ? 2 * own.count : count;
  std::vector<float> in(gathers ? own.count : count), out(received);
  for (size_t i = 0; i < in.size(); ++i) in[i] = input(comm.rank(), i);
  if (kind == Kind::broadcast) out = in;
  Call call;
  call.kind = kind;
  call.op = op;
  call.factor = factor;
  call.in = {reinterpret_cast<const std::byte*>(in.data()), in.size(), DType::f32};
  call.out = {reinterpret_cast<std::byte*>(out.data()), out.size(), DType::f32};
  if (kind == Kind::broadcast) call.in = call.out;
  call.layout = layout_of(chunks);
  call.received = {{0, own.count}, {own.count, own.count}};
  comm.run(call);

  const auto wanted = [&](size_t i) {
    switch (kind) {
      case Kind::allreduce: return factor * input(0, i) + factor * input(1, i);
      case Kind::reduce_scatter: return factor * input(0, own.begin + i) + factor * input(1, own.begin + i);
      case Kind::broadcast: return input(0, i);
      case Kind::allgather: return i < chunks[0].count ? input(0, i) : input(1, i - chunks[0].count);
      default: return i < own.count ? input(0, own.begin + i) : input(1, own.begin + i - own.count);
    }
  };
  for (size_t i = 0; i < out.size(); ++i)
    PYCOLL_CHECK_AS(Error, out[i] == wanted(i), name_of(kind), " of ", count, ": element ", i, " is ", out[i],
                    ", wanted ", wanted(i));
}

void run_all(const char* stores, const char* single_copy) {
  setenv("PYCOLL_STORES", stores, 1);
  setenv("PYCOLL_SINGLE_COPY", single_copy, 1);
  const auto comms = threads::make({kRanks, {}}, 60, kRanks);
  unsetenv("PYCOLL_STORES");
  unsetenv("PYCOLL_SINGLE_COPY");
  threads::run(kRanks, [&](int rank) {
    Communicator& comm = *comms[size_t(rank)];
    comm.settle();
    for (const size_t count : {size_t(257), size_t(5003), size_t(20011), size_t(1) << 19, (size_t(1) << 20) + 3})
      for (const Kind kind :
           {Kind::allreduce, Kind::reduce_scatter, Kind::allgather, Kind::broadcast, Kind::alltoall}) {
        run(comm, kind, count, ReduceOp::sum);
        if (reduces(kind)) run(comm, kind, count, ReduceOp::premul_sum);
      }
  });
}

}  // namespace

TEST("choices that are forced") {
  for (const char* stores : {"ordinary", "streaming"})
    for (const char* single_copy : {"0", "1"}) run_all(stores, single_copy);
}

TEST("choices of a probe") {
  run_all("", "");
}

// A rank whose array is in symmetric memory and one whose array is not; and one array of each kind on every rank.
TEST("symmetric and private arrays in one operation") {
  setenv("PYCOLL_SINGLE_COPY", "1", 1);
  const auto comms = threads::make({kRanks, {}}, 60, kRanks);
  unsetenv("PYCOLL_SINGLE_COPY");
  for (const size_t count : {size_t(5003), size_t(1) << 19}) {
    const size_t stride = count * sizeof(float);
    const auto region = Segment::local(kRanks * stride);
    for (const auto& comm : comms) comm->add_region(uint32_t(count), region, stride);
    threads::run(kRanks, [&](int rank) {
      Communicator& comm = *comms[size_t(rank)];
      comm.settle();
      std::vector<float> own(count);
      auto* const shared = reinterpret_cast<float*>(region->data() + size_t(rank) * stride);
      for (const bool out_of_place : {false, true}) {
        float* const in = out_of_place || rank == 0 ? shared : own.data();
        float* const out = out_of_place ? own.data() : in;
        for (size_t i = 0; i < count; ++i) in[i] = input(rank, i);
        Call call;
        call.kind = Kind::allreduce;
        call.in = {reinterpret_cast<const std::byte*>(in), count, DType::f32};
        call.out = {reinterpret_cast<std::byte*>(out), count, DType::f32};
        comm.run(call);
        for (size_t i = 0; i < count; ++i)
          PYCOLL_CHECK_AS(Error, out[i] == input(0, i) + input(1, i), "element ", i, " of ", count, " is ", out[i]);
      }
    });
  }
}

TEST("a choice that there is not is refused") {
  setenv("PYCOLL_STORES", "fast", 1);
  std::string sentence;
  try {
    threads::make({1, {}});
  } catch (const InvalidArgument& error) {
    sentence = error.what();
  }
  unsetenv("PYCOLL_STORES");
  CHECK(sentence == "PYCOLL_STORES is 'fast', wanted ordinary or streaming", sentence);
}

int main(int argc, char** argv) {
  return check::run(argc, argv);
}
