// A point in time that a wait must not pass.
#pragma once
#include <algorithm>
#include <chrono>
#include <ctime>

namespace pycoll {

class Deadline {
 public:
  using Clock = std::chrono::steady_clock;
  using Seconds = std::chrono::duration<double>;

  // From the kernel's last tick, which costs a tenth of asking for the time, and so up to a tick (10 ms) late.
  static Deadline after(double seconds) {
    constexpr double kCentury = 3e9, kTick = 0.01;
    timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    const auto tick = std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
    return Deadline(Clock::time_point(
        std::chrono::duration_cast<Clock::duration>(tick + Seconds(std::min(seconds, kCentury) + kTick))));
  }
  bool passed() const { return Clock::now() >= at_; }
  double left() const { return std::max(0.0, Seconds(at_ - Clock::now()).count()); }

 private:
  explicit Deadline(Clock::time_point at) : at_(at) {}
  Clock::time_point at_;
};

}  // namespace pycoll
