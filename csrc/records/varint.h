// Whole numbers in as few bytes as they need: seven bits a byte, the lowest first.
#pragma once
#include <cstdint>
#include <string>

#include "core/error.h"

namespace pycoll::records {

constexpr int kMostVarint = 10;  // bytes

inline char* put_varint(char* to, uint64_t x) {
  for (; x >= 0x80; x >>= 7) *to++ = static_cast<char>(x | 0x80);
  *to++ = static_cast<char>(x);
  return to;
}
inline void put_varint(std::string& to, uint64_t x) {
  char room[kMostVarint];
  to.append(room, put_varint(room, x));
}

// Moves `p` behind the number; false if it does not end before `end`.
inline bool get_varint(const char*& p, const char* end, uint64_t& x) {
  x = 0;
  for (int shift = 0; p < end && shift < 64; shift += 7) {
    const auto byte = static_cast<uint8_t>(*p++);
    x |= uint64_t(byte & 0x7F) << shift;
    if (byte < 0x80) return true;
  }
  return false;
}
inline uint64_t take_varint(const char*& p, const char* end) {
  uint64_t x;
  PYCOLL_CHECK_AS(TransportError, get_varint(p, end, x), "mapreduce: a record ends in the middle of a number");
  return x;
}

// Small numbers of either sign are small.
constexpr uint64_t zigzag(int64_t x) {
  return uint64_t(x) << 1 ^ uint64_t(x >> 63);
}
constexpr int64_t zagzig(uint64_t x) {
  return int64_t(x >> 1) ^ -int64_t(x & 1);
}

}  // namespace pycoll::records
