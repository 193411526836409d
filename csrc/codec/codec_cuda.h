// codec.h in the memory of a CUDA device: the same bytes. Compiled into _cuda.
//
// Arrays and wires are memory of the current device, wires aligned to 4 bytes. Calls are enqueued on the stream. They
// raise InvalidArgument and DeviceError.
#pragma once
#include <optional>
#include <span>
#include <string>

#include "codec/codec.h"
#include "kernels/device_cuda.h"

namespace pycoll::codec::cuda {

using kernels::cuda::Stream;

// What Codec::encode does; `wire` has most_bytes(). Returns the bytes of the wire, or nothing where only its header
// knows: of TopK not exact.
std::optional<size_t> encode(const Codec& codec, std::span<const float> in, float* residual, const Moment& moment,
                             Bytes wire, Stream stream);

// The header that a wire begins with, unchecked. Waits for the stream. Raises TransportError if the wire is shorter.
WireHeader header_of(ConstBytes wire, Stream stream);

// As check() of codec.h. Returns the elements that the wire holds.
size_t check(ConstBytes wire, Stream stream);

// As those of codec.h. Wait for what is found in the wire, not for what is written.
void decode_into(std::span<float> out, ConstBytes wire, Stream stream);
void decode_add(std::span<float> acc, ConstBytes wire, Stream stream);

// wire = the sum of up to kernels::cuda::kMostPeers wires of `count` elements that this codec, one with blocks, wrote;
// added in float32 in the order given, quantized once. Unchecked. Returns the bytes of the wire.
size_t sum(const Codec& codec, std::span<const ConstBytes> wires, size_t count, Bytes wire, Stream stream);

}  // namespace pycoll::codec::cuda
