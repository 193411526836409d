// Several arrays as one: packed one after another.
#pragma once
#include <cstring>
#include <vector>

#include "core/buffer.h"
#include "core/scratch.h"

namespace pycoll {

// All of one dtype. The result is in `scratch`.
inline ConstBuffer pack(const std::vector<ConstBuffer>& pieces, Scratch& scratch) {
  size_t bytes = 0, count = 0;
  for (const ConstBuffer& piece : pieces) bytes += piece.bytes(), count += piece.count;
  std::byte* const packed = scratch.get(bytes).data();
  std::byte* at = packed;
  for (const ConstBuffer& piece : pieces) {
    if (piece.count) std::memcpy(at, piece.data, piece.bytes());
    at += piece.bytes();
  }
  return {packed, count, pieces.front().dtype};
}

inline void unpack(const std::vector<Buffer>& pieces, ConstBuffer packed) {
  const std::byte* at = packed.data;
  for (const Buffer& piece : pieces) {
    if (piece.count) std::memcpy(piece.data, at, piece.bytes());
    at += piece.bytes();
  }
}

}  // namespace pycoll
