// Which elements a seed chooses: one of each of k strata (codec/randomk.h).
#pragma once
#include <cstdint>

#include "kernels/philox.h"

namespace pycoll::kernels {
namespace {  // as philox.h is

inline constexpr uint32_t kRandomStream = 0xffffffff;  // no rank's

struct Strata {
  static constexpr uint64_t kHeadBytes = 16;  // seed and step, as payloads begin

  uint64_t seed, step, count, k;  // k <= count < 2^32

  // Of strata 4 quad to 4 quad + 3.
  PYCOLL_PHILOX PhiloxBlock words(uint64_t quad) const {
    return philox({{uint32_t(quad), 0, uint32_t(step), kRandomStream}}, seed);
  }
  PYCOLL_PHILOX uint64_t begin(uint64_t j) const { return j * count / k; }
  // Which of [begin, end) a word chooses.
  PYCOLL_PHILOX static uint64_t choice(uint64_t begin, uint64_t end, uint32_t word) {
    return begin + (word * (end - begin) >> 32);
  }
};

}  // namespace
}  // namespace pycoll::kernels
