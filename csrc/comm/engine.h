// One FIFO of calls and one thread that runs them, started when the first asynchronous call comes.
#pragma once
#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include <unistd.h>

#include "comm/call.h"
#include "core/fence.h"
#include "core/work.h"
#include "transport/bell.h"

namespace pycoll {

class Engine {
 public:
  enum class Progress { idle, pending };  // of point-to-point operations started earlier
  // `execute` runs a call to its end, or starts it and finishes the Work later (point-to-point); `poll` moves those on.
  using Execute = std::function<void(Call&, std::shared_ptr<Work>)>;
  using Poll = std::function<Progress()>;

  // bell: rung when poll() may have something to do; null: nobody rings.
  Engine(Execute execute, Poll poll, Bell* bell);
  ~Engine();

  // Runs `body` on this thread if nothing is under way or queued; false if it did not. Takes no lock.
  template <class Body>
  bool run_here(Body&& body) {
    if (queued_.load() != 0 || busy_.exchange(true)) return false;
    const Release release{*this};
    body();
    return true;
  }
  void enqueue(Call call, std::shared_ptr<Work> work);
  // Waits for everything queued, at most `seconds`, and ends the thread.
  // False if something was still running then.
  bool stop(double seconds);

 private:
  struct Item {
    Call call;
    std::shared_ptr<Work> work;
  };
  struct Release {
    Engine& engine;
    ~Release() { engine.release(); }
  };
  void release() {
    busy_.store(false, std::memory_order_release);
    light_fence(reached_);
    if (waiters_.load(std::memory_order_relaxed) != 0) wake();
  }
  void wake();
  // Until ready(), which is called with the lock held; false after `seconds`.
  template <class Ready>
  bool wait(std::unique_lock<std::mutex>& lock, double seconds, Ready&& ready);
  void loop();
  void rouse();

  Execute execute_;
  Poll poll_;
  Bell* const bell_;
  std::mutex mutex_;  // of what follows up to stopping_
  std::condition_variable changed_;
  std::deque<Item> queue_;
  bool pending_ = false, stopping_ = false;
  // Who sets `busy_` runs; whoever waits for it to change counts himself first.
  std::atomic<bool> busy_{false};
  std::atomic<int> queued_{0}, waiters_{0};
  std::thread thread_;
  const pid_t pid_ = getpid();
  const bool reached_ = reached_by_heavy_fences();
};

}  // namespace pycoll
