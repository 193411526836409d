// The sample from which a selection takes its first threshold; the same on CPUs and devices, for what select_near sends
// depends on it.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "kernels/values.h"

namespace pycoll::kernels {

// Clumps of neighbours, equally far apart. The threshold is the rank-th largest magnitude of the sample, its lowest
// kTruncated bits cleared: at least k elements of the array reach it, with few exceptions, and not many more (four
// deviations of the sample's count).
struct TopkSample {
  static constexpr uint32_t kClump = 8;  // half a cache line, a sector of a device's
  static constexpr uint32_t kClumps = 8192;
  static constexpr uint32_t kPerSample = 32;  // of so many elements at least, one is in the sample
  static constexpr uint32_t kTruncated = 9;

  uint64_t count = 0, stride = 0;  // elements of the sample, and from one clump to the next
  uint64_t rank = 0;               // 0: there are too few elements, all reach the threshold

  TopkSample() = default;
  TopkSample(uint64_t elements, uint64_t k) {
    const uint64_t clumps = std::min<uint64_t>(kClumps, elements / (kClump * kPerSample));
    if (clumps == 0) return;
    count = clumps * kClump, stride = elements / clumps;
    const double expected = double(k) * double(count) / double(elements);
    rank = uint64_t(expected + 4 * std::sqrt(expected)) + 2;
    if (rank >= count) rank = 0;
  }
  // Where in the array the sample's i-th element is.
  PYCOLL_ANYWHERE uint64_t operator[](uint64_t i) const { return i / kClump * stride + i % kClump; }
};

}  // namespace pycoll::kernels
