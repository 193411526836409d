#include "comm/engine.h"

#include "core/beside.h"
#include "core/error.h"

namespace pycoll {
namespace {

constexpr int kEager = 200;     // polls of operations under way, before the thread rests
constexpr double kLook = 0.02;  // seconds that it rests at most: nobody rings when a peer dies, or a deadline passes

}  // namespace

Engine::Engine(Execute execute, Poll poll, Bell* bell)
    : execute_(std::move(execute)), poll_(std::move(poll)), bell_(bell) {}

Engine::~Engine() {
  stop(0);
}

void Engine::wake() {
  {
    const std::lock_guard lock(mutex_);
  }  // a waiter that has looked is asleep by now
  changed_.notify_all();
}

template <class Ready>
bool Engine::wait(std::unique_lock<std::mutex>& lock, double seconds, Ready&& ready) {
  waiters_.fetch_add(1);
  heavy_fence();
  const bool came = changed_.wait_for(lock, std::chrono::duration<double>(std::min(seconds, 3e8)), ready);
  waiters_.fetch_sub(1);
  return came;
}

void Engine::enqueue(Call call, std::shared_ptr<Work> work) {
  {
    std::lock_guard lock(mutex_);
    PYCOLL_CHECK(!stopping_, name_of(call.kind), ": the communicator is closed");
    queue_.push_back({std::move(call), std::move(work)});
    queued_.fetch_add(1);
    if (!thread_.joinable()) thread_ = std::thread([this] { loop(); });
  }
  rouse();
}

// The thread, wherever it sleeps; it has seen or will see what was changed under the lock before.
void Engine::rouse() {
  changed_.notify_all();
  if (bell_) bell_->ring();
}

bool Engine::stop(double seconds) {
  if (getpid() != pid_) {  // a fork has the parent's memory, but not its thread
    if (thread_.joinable()) thread_.detach();
    return false;
  }
  bool idle;
  {
    std::unique_lock lock(mutex_);
    if (stopping_ && !thread_.joinable()) return true;
    idle = wait(lock, seconds, [&] { return queue_.empty() && !busy_ && !pending_; });
    stopping_ = true;
    for (Item& item : queue_)
      item.work->finish(std::make_exception_ptr(Error("the communicator was closed before this operation ran")));
    queued_.fetch_sub(int(queue_.size()));
    queue_.clear();
  }
  rouse();
  if (thread_.joinable()) thread_.join();
  return idle;
}

void Engine::loop() {
  work_beside();
  int polls = 0;  // in a row without a call
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    // Not counted as a waiter: blocking calls go by without waking a thread that has nothing to do.
    changed_.wait(lock, [&] { return stopping_ || !queue_.empty() || pending_; });
    constexpr double kForever = 3e8;
    if (busy_) wait(lock, kForever, [&] { return stopping_ || !busy_; });
    if (stopping_) break;
    if (busy_.exchange(true)) continue;  // a blocking call came first
    std::optional<Item> item;
    if (!queue_.empty()) {
      item = std::move(queue_.front());
      queue_.pop_front();
      polls = 0;
    }
    lock.unlock();
    if (item) execute_(item->call, item->work);
    const bool listening = bell_ && polls >= kEager;  // what comes after this poll ends the rest
    if (listening) bell_->listen();
    const bool pending = poll_() == Progress::pending;
    const bool ran = item.has_value();
    item.reset();  // gives arrays back: not under the lock
    lock.lock();
    pending_ = pending;
    busy_ = false;
    if (ran) queued_.fetch_sub(1);
    changed_.notify_all();
    const bool idle = pending && queue_.empty() && !stopping_;
    polls = idle ? polls + 1 : 0;
    if (listening) {
      lock.unlock();
      if (bell_->rest(idle ? kLook : 0)) polls = 0;
      lock.lock();
    } else if (idle && polls > kEager && !bell_) {  // polls more and more seldom
      const auto rest = std::chrono::microseconds(std::min(1000, 5 * (polls - kEager)));
      changed_.wait_for(lock, rest, [&] { return stopping_ || !queue_.empty(); });
    } else if (idle) {
      lock.unlock();
      std::this_thread::yield();
      lock.lock();
    }
  }
  // Closing: what is still under way is given up by the communicator.
  lock.unlock();
}

}  // namespace pycoll
