// Seconds between two looks.
#pragma once
#include <chrono>

namespace pycoll::algo {

class Stopwatch {
 public:
  // Since the start, or the last lap.
  double lap() {
    const auto now = Clock::now();
    const double seconds = std::chrono::duration<double>(now - begin_).count();
    begin_ = now;
    return seconds;
  }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point begin_ = Clock::now();
};

}  // namespace pycoll::algo
