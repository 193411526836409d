// A way to shrink arrays of float32. Encoders know their parameters; decoding goes by the header alone.
//
// The same input, residual and Moment give the same bytes on every instruction set and on CUDA.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "codec/wire.h"

namespace pycoll::codec {

// What random numbers depend on besides the seed of the codec: Philox counters are made of it.
struct Moment {
  uint64_t step = 0;    // number of the operation
  uint32_t stream = 0;  // the rank, where ranks must differ
  uint64_t index = 0;   // of the first element, in the whole array
};

class Codec {
 public:
  virtual ~Codec() = default;
  virtual CodecId id() const = 0;
  // For messages and for agreement between ranks: equal if and only if the parameters are. "int8 block 256".
  virtual std::string describe() const = 0;
  // Bytes of header and payload that `count` elements need at most.
  virtual size_t most_bytes(size_t count) const = 0;
  // Writes header and payload of `in`, or of in + residual where there is a residual, which then becomes what the
  // payload does not carry. `residual` is null or as long as `in`; `wire` has most_bytes(). Returns the bytes written.
  virtual size_t encode(std::span<const float> in, float* residual, const Moment& moment, Bytes wire) const = 0;
};

// The header of a wire that holds `count` elements. Raises TransportError if the wire is cut off, corrupted, or of
// something else; `source` says where it came from: "from rank 3". What lies behind the payload is not looked at.
WireHeader check(ConstBytes wire, size_t count, const std::string& source);

// The part of check() that does not look at the payload. `wire_bytes`: of the header and what lies behind it.
void check_header(const WireHeader& header, size_t wire_bytes, size_t count, const std::string& source);

// out = what the wire says; acc += what the wire says. Raise as check() does, before anything is written.
void decode_into(std::span<float> out, ConstBytes wire, const std::string& source);
void decode_add(std::span<float> acc, ConstBytes wire, const std::string& source);

}  // namespace pycoll::codec
