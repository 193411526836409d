// An operation under way: what an asynchronous call returns.
#pragma once
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>

#include "core/poll.h"

namespace pycoll {

class Work {
 public:
  bool done() const {
    std::lock_guard lock(mutex_);
    return done_;
  }
  // False if `seconds` passed first. Does not raise the operation's error.
  bool wait(double seconds) const {
    const auto until = std::chrono::steady_clock::now() + std::chrono::duration<double>(std::min(seconds, 3e8));
    std::unique_lock lock(mutex_);
    while (!done_) {
      const auto look = std::chrono::steady_clock::now() + std::chrono::milliseconds(50);
      if (changed_.wait_until(lock, look, [&] { return done_; })) break;
      if (std::chrono::steady_clock::now() >= until) return false;
      lock.unlock();
      poll_interrupt();
      lock.lock();
    }
    return true;
  }
  // Without looking for interrupts: for operations that are sure to end soon.
  void wait_to_end() const {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return done_; });
  }
  // Null if there was none, or the operation is not done.
  std::exception_ptr exception() const {
    std::lock_guard lock(mutex_);
    return error_;
  }
  void finish(std::exception_ptr error) {
    std::shared_ptr<void> kept;  // given back without the lock: that may take another lock, such as Python's
    {
      std::lock_guard lock(mutex_);
      done_ = true;
      error_ = std::move(error);
      kept = std::move(kept_);
    }
    changed_.notify_all();
  }
  // Who sent what a receive got; -1 until that is known, and for other operations.
  int source() const { return source_.load(); }
  void set_source(int rank) { source_.store(rank); }
  // What must live until the operation is done: the arrays.
  void keep(std::shared_ptr<void> kept) { kept_ = std::move(kept); }

 private:
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  bool done_ = false;
  std::atomic<int> source_{-1};
  std::exception_ptr error_;
  std::shared_ptr<void> kept_;
};

}  // namespace pycoll
