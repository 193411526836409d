// codec/wire.h's header as the words that its checksum is made of; for the host, and for a device that fills it in.
#pragma once
#include <cstdint>

#include "kernels/values.h"

namespace pycoll::kernels {

// The last word becomes the checksum of the payload plus that of the words with 0 in its place.
struct Header {
  static constexpr uint32_t kWords = 8;
  uint32_t word[kWords];

  // Of the payload.
  PYCOLL_ANYWHERE uint64_t bytes() const { return word[4] | uint64_t(word[5]) << 32; }
  PYCOLL_ANYWHERE void describe(uint64_t bytes, uint32_t parameter) {
    word[4] = uint32_t(bytes), word[5] = uint32_t(bytes >> 32), word[6] = parameter;
  }
};

}  // namespace pycoll::kernels
