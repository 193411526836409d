// How many of `count` elements a sparse codec keeps.
#pragma once
#include <algorithm>
#include <charconv>
#include <cmath>
#include <string>

#include "core/error.h"

namespace pycoll::codec {

struct Kept {
  double ratio;  // rounded up
  size_t k;      // instead, if not 0

  size_t of(size_t count) const { return std::min(count, k ? k : size_t(std::ceil(ratio * double(count)))); }
  void check(const char* who) const {
    PYCOLL_CHECK(k > 0 || (ratio > 0 && ratio <= 1), who, ": ratio is ", ratio, ", wanted above 0 and at most 1");
  }
  std::string describe() const {
    if (k) return concat("k ", k);
    char digits[32];  // as many as tell it from its neighbours
    return concat("ratio ", std::string(digits, std::to_chars(digits, digits + sizeof(digits), ratio).ptr));
  }
};

}  // namespace pycoll::codec
