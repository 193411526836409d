// Codecs that write every element, each in the same number of bits: f32 as it is, halves, and the grids of
// kernels/quantize.h with a scale for each block.
#pragma once
#include <cstdint>
#include <memory>
#include <span>

#include "codec/codec.h"

namespace pycoll::codec {

struct Blocks {
  ValueFormat format = ValueFormat::int8;
  uint32_t block = 256;     // elements a scale: a power of two, 32 to 4096; not of f32, f16, bf16
  bool stochastic = false;  // int8 and int4 only
  uint64_t seed = 0;        // of the stochastic ones
};

class Dense : public Codec {
 public:
  virtual Blocks parameters() const = 0;
};

// Identity, cast, int8, int4, fp8 or sign, by the format. Raises InvalidArgument.
std::unique_ptr<Dense> make(const Blocks& blocks);

// What check() asks and the decoders of codec.h do for these codecs. The payload is as long as the header says.

// The bytes that the payload must have; raises TransportError if codec, format and block do not go together.
size_t blocks_bytes(const WireHeader& header, const std::string& source);
// Raises TransportError unless the scales are such as encode writes.
void check_scales(const WireHeader& header, ConstBytes payload, const std::string& source);
void blocks_into(std::span<float> out, const WireHeader& header, ConstBytes payload);
void blocks_add(std::span<float> acc, const WireHeader& header, ConstBytes payload);

}  // namespace pycoll::codec
