#include "transport/board.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstring>
#include <ctime>

#include "core/beside.h"

namespace pycoll {
namespace {

// Between two looks around during a long wait. A death on the node is raised within a few of these.
constexpr double kLook = 0.02;

template <size_t N>
void put(char (&field)[N], const std::string& text) {
  const size_t count = std::min(text.size(), N - 1);
  std::memcpy(field, text.data(), count);
  field[count] = 0;
}

template <class T>
T* carve(std::byte*& at, size_t count) {
  T* const first = reinterpret_cast<T*>(at);
  at += sizeof(T) * count;
  return first;
}

}  // namespace

size_t Board::bytes(int size) {
  return sizeof(shm::FailureRecord) + size_t(size) * (sizeof(shm::Status) + 2 * sizeof(shm::Doorbell));
}

Board::Board(std::byte* at, int index, std::vector<Member> members, int cores)
    : index_(index), members_(std::move(members)) {
  failure_ = carve<shm::FailureRecord>(at, 1);
  status_ = carve<shm::Status>(at, members_.size());
  doorbell_ = carve<shm::Doorbell>(at, members_.size());
  resting_ = carve<shm::Doorbell>(at, members_.size());
  // A rank that has a core to itself may spin; one that shares it must let the others run.
  const bool crowded = size() > cores;
  spins_ = crowded ? 20 : 4000;
  yields_ = 1000;
  for (int i = 0; i < size(); ++i)
    processes_.push_back(i != index_ && member(i).process.pid ? Process(member(i).process) : Process());
}

Board::~Board() {
  leave();
}

void Board::leave() {
  if (getpid() != pid_) return;  // a fork of the rank is not the rank
  if (status_[index_].left.exchange(1)) return;
  for (int i = 0; i < size(); ++i)
    if (i != index_) ring_with_message(i);
}

void Board::announce(const Failure& failure) {
  uint32_t none = 0;
  if (!failure_->state.compare_exchange_strong(none, 1)) return;
  failure_->kind = uint32_t(failure.kind);
  failure_->rank = failure.rank;
  put(failure_->host, failure.host);
  put(failure_->operation, failure.operation);
  put(failure_->text, failure.text);
  failure_->state.store(2, std::memory_order_release);
  for (int i = 0; i < size(); ++i)
    if (i != index_) ring_with_message(i);
}

std::optional<Failure> Board::failure() const {
  if (!failed()) return {};
  return Failure{Failure::Kind(failure_->kind), failure_->rank, failure_->host, failure_->operation, failure_->text};
}

std::string Board::doing(int index) const {
  const shm::Status& status = status_[index];
  const uint32_t started = status.started.load(std::memory_order_acquire);
  const int rank = member(index).rank;
  if (started == 0) return concat("rank ", rank, " has called nothing yet");
  return concat("rank ", rank, " last called ", describe(status.last.load()), " (operation ", started, ")");
}

void Board::wake(shm::Doorbell& bell) {
  bell.rung.fetch_add(1, std::memory_order_release);
  syscall(SYS_futex, &bell.rung, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

void Board::sleep(shm::Doorbell& mine, uint32_t rung, double seconds) {
  const timespec limit{time_t(seconds), long((seconds - double(time_t(seconds))) * 1e9)};
  syscall(SYS_futex, &mine.rung, FUTEX_WAIT, rung, &limit, nullptr, 0);
}

void Board::doze(const std::function<bool()>& ready, double seconds) {
  shm::Doorbell& mine = doorbell_[index_];
  mine.sleeping.store(1, std::memory_order_relaxed);
  const uint32_t rung = mine.rung.load(std::memory_order_acquire);
  heavy_fence();
  if (!ready()) sleep(mine, rung, seconds);
  mine.sleeping.store(0, std::memory_order_relaxed);
}

void Board::listen() {
  resting_[index_].sleeping.store(1, std::memory_order_relaxed);
  heard_ = resting_[index_].rung.load(std::memory_order_acquire);
  heavy_fence();
}

bool Board::rest(double seconds) {
  shm::Doorbell& mine = resting_[index_];
  if (seconds > 0) sleep(mine, heard_, seconds);
  mine.sleeping.store(0, std::memory_order_relaxed);
  return mine.rung.load(std::memory_order_acquire) != heard_;
}

void Board::ring() {
  if (resting_[index_].sleeping.load(std::memory_order_relaxed)) wake(resting_[index_]);
}

void Board::wait_long(const std::function<bool()>& ready, const std::function<std::vector<int>()>& missing,
                      Deadline deadline) {
  for (int i = beside_work ? yields_ : 0; i < yields_; ++i) {
    if (ready()) return;
    sched_yield();
  }
  while (!ready()) {
    doze(ready, std::min(kLook, deadline.left()));
    if (ready()) return;
    check(ready, missing());
    poll_interrupt();
    if (deadline.passed() && !ready()) expire(missing());
  }
}

// True if the wait cannot end without this member: it is waited for, or has not completed the collective under way.
bool Board::holds_up(int index, const std::vector<int>& missing) const {
  if (std::find(missing.begin(), missing.end(), index) != missing.end()) return true;
  return in_collective_ && int32_t(operation_ - status_[index].completed.load(std::memory_order_acquire)) > 0;
}

void Board::check(const std::function<bool()>& ready, const std::vector<int>& missing) {
  for (int i = 0; i < size(); ++i) {
    if (i == index_) continue;
    const bool left = status_[i].left.load(std::memory_order_acquire);
    if (!left && !processes_[size_t(i)].gone()) continue;
    if (holds_up(i, missing) && !ready()) {
      if (const auto known = failure()) known->raise();
      fail(death_of(i, left ? "left (its communicator was closed or its process is exiting)" : "exited or was killed"));
    }
  }
  if (const auto known = failure(); known && !ready()) known->raise();
}

Failure Board::death_of(int index, const char* how) const {
  const Member& dead = member(index);
  return {Failure::Kind::peer_failed, dead.rank, dead.host, doing(index),
          concat(describe(current_), " (operation ", operation_, "): rank ", dead.rank, " on host ", dead.host,
                 ", pid ", dead.process.pid, ", ", how, "; ", doing(index))};
}

void Board::expire(const std::vector<int>& missing) {
  // The rank waited for may itself wait for one that is stopped.
  for (int i = 0; i < size(); ++i)
    if (holds_up(i, missing) && processes_[size_t(i)].stopped())
      fail(death_of(i, "is stopped (SIGSTOP or a debugger) and the deadline passed"));
  std::string ranks, doings;
  for (const int i : missing) {
    ranks += concat(ranks.empty() ? "" : ", ", member(i).rank);
    doings += concat("; ", doing(i));
  }
  fail({Failure::Kind::timeout, -1, "", "",
        concat(describe(current_), " (operation ", operation_, "): rank ", member(index_).rank,
               " passed its timeout waiting for rank ", ranks, doings)});
}

void Board::fail(Failure failure) {
  announce(failure);
  // Another rank may have announced first: all raise the same.
  for (int i = 0; i < 1000; ++i) {
    if (const auto known = this->failure()) known->raise();
    sched_yield();
  }
  failure.raise();
}

}  // namespace pycoll
