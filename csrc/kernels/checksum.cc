#include "kernels/checksum.h"

#include <cstring>

namespace pycoll::kernels {
namespace {

uint32_t fmix32(uint32_t x) {
  x = (x ^ (x >> 16)) * 0x85ebca6b;
  x = (x ^ (x >> 13)) * 0xc2b2ae35;
  return x ^ (x >> 16);
}

}  // namespace

uint32_t mixed_sum(ConstBytes part, uint32_t first) {
  uint32_t sum = 0, position = first;
  for (; part.size() >= 4; part = part.subspan(4), ++position) {
    uint32_t word;
    std::memcpy(&word, part.data(), 4);
    sum += fmix32(word + position * 0x9e3779b1u);
  }
  if (part.empty()) return sum;
  uint32_t last = 0;
  std::memcpy(&last, part.data(), part.size());
  return sum + fmix32(last + position * 0x9e3779b1u);
}

uint32_t checksum(ConstBytes bytes) {
  return uint32_t(bytes.size()) + mixed_sum(bytes, 0);
}

}  // namespace pycoll::kernels
