// The elements of largest magnitude: kernels/topk.h chooses them, sparse.h writes them.
#pragma once
#include "codec/amount.h"
#include "codec/codec.h"

namespace pycoll::codec {

class TopK final : public Codec {
 public:
  // format: of the values; f32, f16, bf16, or int8 and int4 with a scale for each 256 or 128 values. Not exact: nearly
  // as many, by an estimated threshold. Raises InvalidArgument.
  TopK(Amount amount, bool exact, ValueFormat format);
  CodecId id() const override { return CodecId::topk; }
  std::string describe() const override;
  size_t most_bytes(size_t count) const override;
  size_t encode(std::span<const float> in, float* residual, const Moment& moment, Bytes wire) const override;

  size_t entries(size_t count) const { return amount_.of(count); }
  bool exact() const { return exact_; }
  ValueFormat format() const { return format_; }

 private:
  Amount amount_;
  bool exact_;
  ValueFormat format_;
};

}  // namespace pycoll::codec
