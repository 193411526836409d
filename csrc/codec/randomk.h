// k elements that all ranks choose alike, by random numbers of seed and step: their indices never travel.
//
// The array is divided into k strata as equal as Partition makes them; of each one element is chosen: with r the first
// word of Philox for element i (stratum i, stream 0), element floor(r * n / 2^32) of its n.
// Values are not scaled up for what is not sent: error feedback makes up for it.
#pragma once
#include "codec/amount.h"
#include "codec/codec.h"

namespace pycoll::codec {

class RandomK final : public Codec {
 public:
  RandomK(Amount amount, uint64_t seed);  // raises InvalidArgument
  CodecId id() const override { return CodecId::randomk; }
  std::string describe() const override;
  size_t most_bytes(size_t count) const override;
  size_t encode(std::span<const float> in, float* residual, const Moment& moment, Bytes wire) const override;

  size_t entries(size_t count) const { return amount_.of(count); }
  // index has entries(count) elements, ascending.
  void choose(uint64_t step, size_t count, std::span<uint32_t> index) const;

 private:
  Amount amount_;
  uint64_t seed_;
};

// The same for a payload, which carries seed, step and values.
void randomk_into(std::span<float> out, const WireHeader& header, ConstBytes payload, const std::string& source);
void randomk_add(std::span<float> acc, const WireHeader& header, ConstBytes payload, const std::string& source);

}  // namespace pycoll::codec
