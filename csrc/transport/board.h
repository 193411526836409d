// What the ranks of a node tell each other beside the data: what each is doing, who has left, what has failed, and how
// to wait for one another without starving anybody.
#pragma once
#include <unistd.h>

#include <array>
#include <atomic>
#include <bit>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/deadline.h"
#include "core/failure.h"
#include "core/fence.h"
#include "core/poll.h"
#include "core/signature.h"
#include "transport/bell.h"
#include "transport/process.h"

namespace pycoll {

// One rank of the node.
struct Member {
  int rank = 0;  // in the communicator
  std::string host;
  ProcessId process;  // pid 0: a thread of this process
};

namespace shm {

inline constexpr size_t kLine = 64;

// A signature that peers may read at any time; one read during a write describes neither call, but is harmless.
struct LastCall {
  std::atomic<uint64_t> words[3];
  void store(const Signature& s) {
    const auto from = std::bit_cast<std::array<uint64_t, 3>>(s);
    for (size_t i = 0; i < 3; ++i) words[i].store(from[i], std::memory_order_relaxed);
  }
  Signature load() const {
    std::array<uint64_t, 3> to;
    for (size_t i = 0; i < 3; ++i) to[i] = words[i].load(std::memory_order_relaxed);
    return std::bit_cast<Signature>(to);
  }
};
// Written by its owner alone.
struct alignas(kLine) Status {
  std::atomic<uint32_t> started;  // collective operations, counted from 1
  std::atomic<uint32_t> completed;
  std::atomic<uint32_t> left;   // 1 once the communicator was closed, or its process is exiting
  std::atomic<uint64_t> probe;  // address of a word in its private memory that holds this address
  LastCall last;                // also of send and recv, which are not counted
};
// Set by a rank that is about to sleep, rung by whoever gives it something to do.
struct alignas(kLine) Doorbell {
  std::atomic<uint32_t> sleeping;
  std::atomic<uint32_t> rung;
};
struct alignas(kLine) FailureRecord {
  std::atomic<uint32_t> state;  // 0 none, 1 being written, 2 readable
  uint32_t kind;
  int32_t rank;
  char host[128];
  char operation[256];
  char text[1024];
};

}  // namespace shm

// Of its bells, the first is for whoever waits for one thing; the second, a Bell, for the thread that rests while
// messages are under way.
class Board final : public Bell {
 public:
  static size_t bytes(int size);
  // `at` is zeroed, cache-line aligned, and shared by all members; `index` is this rank's place among them.
  Board(std::byte* at, int index, std::vector<Member> members, int cores);
  ~Board() override;

  int index() const { return index_; }
  int size() const { return int(members_.size()); }
  const Member& member(int index) const { return members_[size_t(index)]; }

  // Collective operations are counted, and a peer's death during one is everybody's.
  void start(const Signature& signature) {
    in_collective_ = true;
    called(signature);
    status_[index_].started.store(++operation_, std::memory_order_release);
  }
  void complete() {
    in_collective_ = false;
    status_[index_].completed.store(operation_, std::memory_order_release);
  }
  void called(const Signature& signature) {
    current_ = signature;
    status_[index_].last.store(signature);
  }
  uint32_t operation() const { return operation_; }
  void leave();
  void show_probe(uint64_t address) { status_[index_].probe.store(address, std::memory_order_release); }
  uint64_t probe(int index) const { return status_[index].probe.load(std::memory_order_acquire); }

  // The first failure of the communicator; later ones are dropped.
  void announce(const Failure& failure);
  std::optional<Failure> failure() const;
  bool failed() const { return failure_->state.load(std::memory_order_acquire) == 2; }

  std::string doing(int index) const;  // "rank 2 last called allreduce f32[8] sum (operation 3)"

  // Whether heavy fences reach this process, and what all found: true if they reach all members.
  bool reached() const { return reached_; }
  void all_are_reached(bool all) { all_reached_ = all; }

  // Wakes member `index` if it sleeps. To be called after what it waits for was stored.
  void ring(int index) {
    light_fence(all_reached_);
    if (doorbell_[index].sleeping.load(std::memory_order_relaxed)) wake(doorbell_[index]);
  }
  // The same where it is a message, which its resting thread may wait for as well.
  void ring_with_message(int index) {
    ring(index);
    if (resting_[index].sleeping.load(std::memory_order_relaxed)) wake(resting_[index]);
  }

  // The same for all the others, with one fence.
  void ring_all() {
    light_fence(all_reached_);
    for (int i = 0; i < size(); ++i)
      if (i != index_ && doorbell_[i].sleeping.load(std::memory_order_relaxed)) wake(doorbell_[i]);
  }

  void listen() override;
  bool rest(double seconds) override;
  void ring() override;

  // Waits until ready() is true. `missing` gives the members that are waited for (called only when the wait is long).
  // Raises the communicator's failure, PeerFailed, Timeout or Interrupted.
  template <class Ready, class Missing>
  void wait(Ready&& ready, Missing&& missing, Deadline deadline) {
    for (int i = 0; i < spins_; ++i) {
      if (ready()) return;
      pause();
    }
    wait_long(ready, missing, deadline);
  }

  // One look around: raises if the communicator has failed, or a member is gone that had not completed the current
  // operation, or one of `missing` is gone. `ready` is looked at once more before a peer's death is raised.
  void check(const std::function<bool()>& ready, const std::vector<int>& missing);
  // What to raise at the deadline: PeerFailed if one of `missing` is stopped, Timeout otherwise. Announces it.
  [[noreturn]] void expire(const std::vector<int>& missing);
  [[noreturn]] void fail(Failure failure);

 private:
  static void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }
  static void wake(shm::Doorbell& bell);
  static void sleep(shm::Doorbell& mine, uint32_t rung, double seconds);
  void wait_long(const std::function<bool()>& ready, const std::function<std::vector<int>()>& missing,
                 Deadline deadline);
  void doze(const std::function<bool()>& ready, double seconds);
  bool holds_up(int index, const std::vector<int>& missing) const;
  Failure death_of(int index, const char* how) const;

  const pid_t pid_ = getpid();
  const bool reached_ = reached_by_heavy_fences();
  bool all_reached_ = false;
  const int index_;
  const std::vector<Member> members_;
  int spins_, yields_;
  uint32_t operation_ = 0;
  bool in_collective_ = false;
  Signature current_;
  shm::FailureRecord* failure_;
  shm::Status* status_;
  shm::Doorbell *doorbell_, *resting_;
  uint32_t heard_ = 0;  // rings of its resting thread when it began to listen
  std::vector<Process> processes_;
};

}  // namespace pycoll
