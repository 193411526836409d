// The largest elements, by kernels/topk.h, as a sparse payload.
#pragma once
#include "codec/amount.h"
#include "codec/codec.h"

namespace pycoll::codec {

class TopK final : public Codec {
 public:
  // exact: by select_topk, else by select_near. format: of the values, one of values.h. Raises InvalidArgument.
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
