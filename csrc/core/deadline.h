// A point in time that a wait must not pass.
#pragma once
#include <algorithm>
#include <chrono>

namespace pycoll {

class Deadline {
 public:
  using Clock = std::chrono::steady_clock;
  using Seconds = std::chrono::duration<double>;

  static Deadline after(double seconds) {
    constexpr double kCentury = 3e9;
    return Deadline(Clock::now() + std::chrono::duration_cast<Clock::duration>(Seconds(std::min(seconds, kCentury))));
  }
  bool passed() const { return Clock::now() >= at_; }
  double left() const { return std::max(0.0, Seconds(at_ - Clock::now()).count()); }

 private:
  explicit Deadline(Clock::time_point at) : at_(at) {}
  Clock::time_point at_;
};

}  // namespace pycoll
