// The kernels' context on fibers: what it promises, and that it finds the mistakes it is there to find.
#include <vector>

#include "check.h"
#include "kernels/device/fibers.h"

using namespace pycoll;
using namespace pycoll::kernels::device;

namespace {

using Thread = fibers::Thread;

// What a run that must not end well says.
std::string complaint_of(uint32_t blocks, const std::function<void(Thread&)>& body) {
  try {
    run_on_fibers(blocks, 1, body);
  } catch (const Stuck& stuck) {
    return stuck.what();
  }
  throw check::Failed("a kernel that cannot end has ended");
}

bool contains(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}

struct Board {
  uint32_t of[kThreads];
};

// Reverses the threads' numbers through shared memory; with a barrier, or without the one that is needed.
bool reverses(uint64_t seed, bool barrier) {
  std::vector<uint32_t> out(kThreads);
  run_on_fibers(1, seed, [&](Thread& on) {
    Board& board = on.shared<Board>();
    board.of[on.thread()] = on.thread();
    if (barrier) on.sync();
    out[on.thread()] = board.of[kThreads - 1 - on.thread()];
  });
  for (uint32_t i = 0; i < kThreads; ++i)
    if (out[i] != kThreads - 1 - i) return false;
  return true;
}

TEST("fibers: shuffles, ballots, sums and scans are of the warp and of the block") {
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    std::vector<int> right(3 * kThreads);
    run_on_fibers(3, seed, [&](Thread& on) {
      const uint32_t t = on.thread(), base = t - lane(on);
      bool good = on.shuffle(t, (t + 5) % kWarp) == base + (t + 5) % kWarp;
      good &= on.shuffle(double(t), 7) == double(base + 7);
      good &= (on.ballot(t % 3 == 0) >> lane(on) & 1u) == (t % 3 == 0);
      good &= on.max(t ^ 3) == base + kWarp - 1;
      good &= on.sum(t) == kWarp * base + kWarp * (kWarp - 1) / 2;
      good &= scan_warp(on, t + 1) == (lane(on) + 1) * (base + 1) + lane(on) * (lane(on) + 1) / 2;
      good &= scan_block(on, t) == t * (t + 1) / 2;
      good &= scan_block(on, 1) == t + 1;
      right[on.block() * kThreads + t] = good;
    });
    for (const int good : right) CHECK(good, "seed ", seed);
  }
}

TEST("fibers: atomics lose nothing, and the last block sees what all have written") {
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    uint32_t sum = 0, arrived = 0, lasts = 0, seen = 0;
    run_on_fibers(7, seed, [&](Thread& on) {
      on.add(&sum, on.thread());
      if (!last_block(on, &arrived) || on.thread()) return;
      ++lasts;
      seen = sum;
    });
    CHECK(lasts == 1 && seen == 7 * kThreads * (kThreads - 1) / 2, "seed ", seed, " lasts ", lasts, " seen ", seen);
  }
}

TEST("fibers: a block that waits for one before it goes on, one that waits for nobody is named") {
  std::vector<uint64_t> flags(9);
  run_on_fibers(8, 1, [&](Thread& on) {
    if (on.thread()) return;
    while (on.block() && on.load(&flags[on.block()]) == 0) on.relax();
    on.store(&flags[on.block() + 1], 1);
  });
  CHECK(flags[8] == 1, "");
  const auto text = complaint_of(1, [&](Thread& on) {
    uint64_t never = 0;
    while (on.load(&never) == 0) on.relax();
  });
  CHECK(contains(text, "block 0") && contains(text, "in vain") && contains(text, "relax (test_device.cc:"), text);
}

TEST("fibers: a barrier that not all threads reach is found, and the threads are named") {
  const auto left = complaint_of(2, [](Thread& on) {
    if (on.thread() < 40) on.sync();
  });
  CHECK(contains(left, "threads 0-39 wait in sync (test_device.cc:") && contains(left, "threads 40-255 ended"), left);
  const auto apart = complaint_of(1, [](Thread& on) {
    if (on.thread() < 64) {
      on.sync();
    } else {
      on.sync();
    }
  });
  CHECK(contains(apart, "different things") && contains(apart, "threads 0-63 wait"), apart);
  const auto warp = complaint_of(1, [](Thread& on) {
    if (on.thread() % kWarp != 3) on.ballot(true);
  });
  CHECK(contains(warp, "threads 0-2 wait in ballot") && contains(warp, "threads 3-3 ended"), warp);
  const auto mixed = complaint_of(1, [](Thread& on) { on.thread() % 2 ? on.ballot(true) : on.sum(1); });
  CHECK(contains(mixed, "wait in ballot") && contains(mixed, "wait in sum"), mixed);
}

TEST("fibers: what a body throws comes out") {
  std::string text;
  try {
    run_on_fibers(2, 1, [](Thread& on) {
      PYCOLL_CHECK(on.thread() != 9, "thread nine");
      on.sync();
    });
  } catch (const InvalidArgument& error) {
    text = error.what();
  }
  CHECK(text == "thread nine", text);
}

TEST("fibers: a missing barrier gives something else under some seed") {
  int wrong = 0;
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    CHECK(reverses(seed, true), "seed ", seed);
    wrong += !reverses(seed, false);
  }
  CHECK(wrong > 0, "");
}

}  // namespace

int main(int argc, char** argv) {
  return check::run(argc, argv);
}
