// How many elements a sparse codec sends: a number, or a part of the array.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>

#include "core/error.h"

namespace pycoll::codec {

struct Amount {
  double ratio = 0;  // above 0, at most 1; 0: k is given
  size_t k = 0;

  // Of an array of `count`: at least one, unless it is empty.
  size_t of(size_t count) const {
    const size_t wanted = k ? k : size_t(std::llround(ratio * double(count)));
    return std::min(count, std::max<size_t>(wanted, 1));
  }
  void validate(const char* who) const {
    PYCOLL_CHECK((ratio > 0) != (k > 0), who, ": wanted either a ratio above 0 or k of at least 1, got ratio ", ratio,
                 " and k ", k);
    PYCOLL_CHECK(ratio <= 1, who, ": ratio is ", ratio, ", wanted at most 1");
  }
  std::string describe() const { return k ? concat("k ", k) : concat("ratio ", ratio); }
};

}  // namespace pycoll::codec
