// Messages that nobody waits for in the call: the thread that moves them on rests, and is woken by what comes.
#include <atomic>
#include <chrono>
#include <random>
#include <thread>

#include "check.h"
#include "threads.h"

using namespace pycoll;

namespace {

using Clock = std::chrono::steady_clock;

std::shared_ptr<Work> send(Communicator& comm, const std::vector<uint64_t>& words, int to, uint64_t tag) {
  Call call;
  call.kind = Kind::send;
  call.root = to;
  call.tag = tag;
  call.in = {reinterpret_cast<const std::byte*>(words.data()), words.size(), DType::u64};
  return comm.submit(std::move(call), nullptr);
}

std::shared_ptr<Work> recv(Communicator& comm, std::vector<uint64_t>& words, int from, uint64_t tag) {
  Call call;
  call.kind = Kind::recv;
  call.root = from;
  call.tag = tag;
  call.out = {reinterpret_cast<std::byte*>(words.data()), words.size(), DType::u64};
  return comm.submit(std::move(call), nullptr);
}

void finish(const std::shared_ptr<Work>& work) {
  PYCOLL_CHECK_AS(Error, work->wait(30), "an operation took 30 s");
  if (const auto error = work->exception()) std::rethrow_exception(error);
}

void pause(std::minstd_rand& random) {
  std::this_thread::sleep_for(std::chrono::microseconds(random() % 2000));
}

}  // namespace

// A rest lasts 20 ms where nothing ends it: a message that fails to would show.
TEST("a message ends the rest of whom it is for") {
  constexpr int kRounds = 150;
  std::atomic<int> late{0};
  const auto comms = threads::make({2, {}}, 30, 2);
  threads::run(2, [&](int rank) {
    Communicator& comm = *comms[size_t(rank)];
    std::minstd_rand random(unsigned(rank) + 1);
    for (uint64_t round = 0; round < kRounds; ++round) {
      std::vector<uint64_t> out(1, round), in(1);
      if (rank == 0) {
        const auto coming = recv(comm, in, 1, 1);
        pause(random);  // both threads rest by now, or are about to
        const auto begin = Clock::now();
        finish(send(comm, out, 1, 0));
        finish(coming);
        late += Clock::now() - begin > std::chrono::milliseconds(12);
      } else {
        finish(recv(comm, in, 0, 0));
        finish(send(comm, in, 0, 1));
      }
      PYCOLL_CHECK_AS(Error, in[0] == round, "round ", round, " got ", in[0]);
    }
  });
  CHECK(late < kRounds / 5, late, " of ", int(kRounds), " round trips took longer than a message that wakes does");
}

// Messages longer than all slots together, collectives in between, on ranks that go to rest at any moment.
TEST("messages and collectives at random moments") {
  constexpr int kRanks = 3, kRounds = 60;
  const auto comms = threads::make({kRanks, {}}, 30, 1);
  threads::run(kRanks, [&](int rank) {
    Communicator& comm = *comms[size_t(rank)];
    std::minstd_rand own(unsigned(rank) + 1), common(7);
    const int next = (rank + 1) % kRanks, prev = (rank + kRanks - 1) % kRanks;
    for (uint64_t round = 0; round < kRounds; ++round) {
      const size_t count = std::vector<size_t>{1, 1000, 100'000}[common() % 3];
      const bool meets = common() % 2;
      std::vector<uint64_t> out(count, round * kRanks + uint64_t(rank)), in(count);
      if (own() % 2) pause(own);
      const auto coming = recv(comm, in, prev, round);
      if (own() % 2) pause(own);
      const auto going = send(comm, out, next, round);
      if (meets) {
        uint64_t sum = uint64_t(rank);
        Call call;
        call.kind = Kind::allreduce;
        call.in = {reinterpret_cast<const std::byte*>(&sum), 1, DType::u64};
        call.out = {reinterpret_cast<std::byte*>(&sum), 1, DType::u64};
        comm.run(call);
        PYCOLL_CHECK_AS(Error, sum == kRanks * (kRanks - 1) / 2, "round ", round, ": the sum is ", sum);
      }
      finish(going);
      finish(coming);
      const uint64_t wanted = round * kRanks + uint64_t(prev);
      for (const uint64_t word : in)
        PYCOLL_CHECK_AS(Error, word == wanted, "round ", round, " got ", word, ", wanted ", wanted);
    }
  });
}

// The deadline of what rests is kept, though nobody rings for it; and a rank that leaves is seen.
TEST("nobody comes") {
  const auto comms = threads::make({2, {}}, 30, 2);
  std::vector<uint64_t> in(1);
  Call call;
  call.kind = Kind::recv;
  call.root = 1;
  call.timeout = 0.2;
  call.out = {reinterpret_cast<std::byte*>(in.data()), 1, DType::u64};
  const auto begin = Clock::now();
  const auto work = comms[0]->submit(call, nullptr);
  CHECK(work->wait(10));
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  CHECK(seconds > 0.19 && seconds < 2, seconds, " s");
  CHECK(work->exception() != nullptr);
}

int main(int argc, char** argv) {
  return check::run(argc, argv);
}
