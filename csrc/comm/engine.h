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
#include "core/work.h"

namespace pycoll {

class Engine {
 public:
  enum class Progress { idle, pending };  // of point-to-point operations started earlier
  // `execute` runs a call to its end, or starts it and finishes the Work later (point-to-point); `poll` moves those on.
  using Execute = std::function<void(Call&, std::shared_ptr<Work>)>;
  using Poll = std::function<Progress()>;

  Engine(Execute execute, Poll poll);
  ~Engine();

  // Runs `body` on this thread if nothing is under way or queued; false if it did not.
  template <class Body>
  bool run_here(Body&& body) {
    {
      std::lock_guard lock(mutex_);
      if (busy_ || !queue_.empty()) return false;
      busy_ = true;
    }
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
  void release();
  void loop();

  Execute execute_;
  Poll poll_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Item> queue_;
  bool busy_ = false, pending_ = false, stopping_ = false;
  std::thread thread_;
  const pid_t pid_ = getpid();
};

}  // namespace pycoll
