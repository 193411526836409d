#include "codec/shared_scale.h"

#include "core/error.h"

namespace pycoll::codec {

SharedScale::SharedScale(int bits, uint32_t block) : bits_(bits), block_(block) {
  PYCOLL_CHECK(bits == 8 || bits == 16, "SharedScale: bits is ", bits, ", wanted 8 or 16");
  PYCOLL_CHECK(block >= 1, "SharedScale: block is 0, wanted at least 1");
}

std::string SharedScale::describe() const {
  return concat("shared_scale bits ", bits_, " block ", block_);
}

size_t SharedScale::most_bytes(size_t) const {
  throw InvalidArgument("SharedScale: does not encode one rank's array by itself: its scales are made by all ranks");
}

size_t SharedScale::encode(std::span<const float>, float*, const Moment&, Bytes) const {
  return most_bytes(0);
}

}  // namespace pycoll::codec
