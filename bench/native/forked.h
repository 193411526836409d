// Ranks as forked children of one process.
#pragma once
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <functional>
#include <new>
#include <vector>

#include "block.h"

// A meeting point in memory that the ranks share. It spins, since what follows is measured, and yields, since there may
// be fewer cores than ranks. It has no deadline of its own: bench/peers.py ends ranks that do not answer.
class Meeting {
 public:
  static Meeting* create(int size) {
    void* const at = mmap(nullptr, sizeof(Meeting), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return at == MAP_FAILED ? nullptr : new (at) Meeting(uint32_t(size));
  }

  void wait() {
    const uint32_t round = round_.load();
    if (arrived_.fetch_add(1) + 1 == size_) {
      arrived_.store(0);
      round_.store(round + 1);
      return;
    }
    for (uint32_t spins = 0; round_.load() == round; ++spins)
      if (spins > kSpins) sched_yield();
  }

 private:
  static constexpr uint32_t kSpins = 2000;
  explicit Meeting(uint32_t size) : size_(size) {}
  alignas(64) std::atomic<uint32_t> arrived_{0};
  alignas(64) std::atomic<uint32_t> round_{0};
  const uint32_t size_;
};

// Runs body(rank) in `size` children, which end with this process; the exit status for main().
inline int fork_ranks(int size, const std::function<void(int rank)>& body) {
  const pid_t parent = getpid();
  for (int rank = 0; rank < size; ++rank) {
    const pid_t pid = fork();
    if (pid < 0) {
      perror("fork");
      return 1;  // the children there are end with this process
    }
    if (pid) continue;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    try {
      body(rank);
    } catch (const std::exception& error) {
      answer_error(error.what());
      fprintf(stderr, "rank %d: %s\n", rank, error.what());
      _exit(1);
    }
    fflush(nullptr);
    _exit(0);
  }
  int worst = 0;
  for (int status; wait(&status) > 0;)
    if (status) worst = 1;
  return worst;
}
