// How many elements a sparse codec sends: a number, or a part of the array.
#pragma once
#include <algorithm>
#include <charconv>
#include <cmath>
#include <string>

#include "core/error.h"

namespace pycoll::codec {

struct Amount {
  double ratio = 0;  // above 0, at most 1, rounded up; 0: k is given
  size_t k = 0;

  size_t of(size_t count) const { return std::min(count, k ? k : size_t(std::ceil(ratio * double(count)))); }
  void check(const char* who) const {
    PYCOLL_CHECK((ratio > 0) != (k > 0), who, ": wanted either a ratio above 0 or k of at least 1, got ratio ", ratio,
                 " and k ", k);
    PYCOLL_CHECK(ratio <= 1, who, ": ratio is ", ratio, ", wanted at most 1");
  }
  std::string describe() const {
    if (k) return concat("k ", k);
    char digits[32];  // as many as tell it from its neighbours
    return concat("ratio ", std::string(digits, std::to_chars(digits, digits + sizeof(digits), ratio).ptr));
  }
};

}  // namespace pycoll::codec
