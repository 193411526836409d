// How far apart two cores are: "ping_pong CORE CORE" answers every line of its input with the nanoseconds that a flag
// takes one way between threads pinned to the two, median of some batches. Between lines it sleeps in read().
#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>

namespace {

constexpr int kBatches = 7;
constexpr int kTrips = 500;  // there and back, a batch

struct alignas(128) Flag {
  std::atomic<int> value{0};
};

bool pin(int core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(core, &set);
  return pthread_setaffinity_np(pthread_self(), sizeof set, &set) == 0;
}

double one_way_ns(int partner) {
  using Clock = std::chrono::steady_clock;
  Flag ping, pong;
  std::thread other([&] {
    pin(partner);
    for (int i = 1; i <= kTrips * (kBatches + 1); ++i) {
      while (ping.value.load(std::memory_order_acquire) != i) {
      }
      pong.value.store(i, std::memory_order_release);
    }
  });
  std::array<double, kBatches> taken;
  int i = 0;
  for (int batch = -1; batch < kBatches; ++batch) {  // the first is warm-up
    const auto begin = Clock::now();
    for (int trip = 0; trip < kTrips; ++trip) {
      ping.value.store(++i, std::memory_order_release);
      while (pong.value.load(std::memory_order_acquire) != i) {
      }
    }
    const std::chrono::duration<double, std::nano> time = Clock::now() - begin;
    if (batch >= 0) taken[size_t(batch)] = time.count() / (2 * kTrips);
  }
  other.join();
  std::nth_element(taken.begin(), taken.begin() + kBatches / 2, taken.end());
  return taken[kBatches / 2];
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3 || !pin(std::atoi(argv[1]))) {
    fprintf(stderr, "usage: ping_pong CORE CORE\n");
    return 2;
  }
  char line[16];
  while (fgets(line, sizeof line, stdin)) {
    printf("%.1f\n", one_way_ns(std::atoi(argv[2])));
    fflush(stdout);
  }
}
