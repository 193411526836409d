// Integers whose scales all ranks share: their sum is exact, and so the same bits in whatever order it is taken.
//
// A block's scale is the largest magnitude that any rank has in it, divided by the largest integer L that P ranks can
// add up in the wire's type: L = (2^(bits - 1) - 1) / P. Not a payload that stands alone: the scales come first, by a
// maximum over the ranks.
#pragma once
#include "codec/codec.h"

namespace pycoll::codec {

class SharedScale final : public Codec {
 public:
  // bits: 8 or 16 a number. block: elements that share a scale, at least 1.
  SharedScale(int bits, uint32_t block);
  CodecId id() const override { return CodecId::identity; }
  std::string describe() const override;
  // Raise InvalidArgument: without the other ranks there is no scale.
  size_t most_bytes(size_t count) const override;
  size_t encode(std::span<const float> in, float* residual, const Moment& moment, Bytes wire) const override;

  int bits() const { return bits_; }
  uint32_t block() const { return block_; }
  // L, or 0 if so many ranks cannot add up in so few bits.
  int largest(int ranks) const { return ((1 << (bits_ - 1)) - 1) / ranks; }

 private:
  int bits_;
  uint32_t block_;
};

}  // namespace pycoll::codec
