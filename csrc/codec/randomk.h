// A few elements chosen at random, the same ones on every rank, so that no indices travel and values can be added up.
//
// k elements of `count`: one of each of k strata. Stratum j is [j * count / k, (j + 1) * count / k), rounded down; of
// its elements, the one that (word * elements) >> 32 counts from its begin is chosen, word being that of element j in
// the Philox stream kRandomStream (kernels/strata.h) for seed and step. So indices ascend, and each element is chosen
// with a probability of k / count, but for rounding. Values are sent as they are, not scaled up: error feedback keeps
// what is not sent.
//
// A payload is u64 seed, u64 step, then the values in order of their indices (values.h). header.parameter is k. Where
// that would be longer than the array itself, the wire is an identity instead.
#pragma once
#include <cstddef>
#include <span>
#include <string>

#include "codec/amount.h"
#include "codec/codec.h"

namespace pycoll::codec {

class RandomK final : public Codec {
 public:
  // format: of the values, one of values.h. Raises InvalidArgument.
  RandomK(Amount amount, uint64_t seed, ValueFormat format = ValueFormat::f32);
  CodecId id() const override { return CodecId::randomk; }
  std::string describe() const override;
  size_t most_bytes(size_t count) const override;
  // Depends on the step of the moment, not on its stream and index.
  size_t encode(std::span<const float> in, float* residual, const Moment& moment, Bytes wire) const override;

  size_t entries(size_t count) const { return amount_.of(count); }
  uint64_t seed() const { return seed_; }
  ValueFormat format() const { return format_; }

 private:
  Amount amount_;
  uint64_t seed_;
  ValueFormat format_;
};

// Bytes of a payload that is no identity.
size_t random_bytes(ValueFormat format, size_t k);

// The k indices among `count` < 2^32, ascending; k <= count.
void random_indices(uint64_t seed, uint64_t step, size_t count, size_t k, uint32_t* index);

// out = what the wire says, 0 where it says nothing; acc += what the wire says. Raise TransportError, before they write
// anything, if header and payload do not go together.
void random_into(std::span<float> out, const WireHeader& header, ConstBytes payload, const std::string& source);
void random_add(std::span<float> acc, const WireHeader& header, ConstBytes payload, const std::string& source);

}  // namespace pycoll::codec
