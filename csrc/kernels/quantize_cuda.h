// Block quantization and checksums on a CUDA device: the contracts of quantize.h and checksum.h, to the bit.
//
// Arrays and payloads are memory of the current device, payloads aligned to 4 bytes (to 16, they are read fastest).
// Calls return once they are enqueued on the stream; none waits for the device. They raise DeviceError and
// InvalidArgument.
#pragma once
#include <cstdint>
#include <span>

#include "kernels/device_cuda.h"
#include "kernels/quantize.h"

namespace pycoll::kernels::cuda {

inline constexpr size_t kMostPeers = 64;

void quantize(const Quantizer& how, const float* in, float* residual, size_t count, std::byte* payload, Stream stream);
void dequantize_into(Grid grid, uint32_t block, float* out, const std::byte* payload, size_t count, Stream stream);
void dequantize_add(Grid grid, uint32_t block, float* acc, const std::byte* payload, size_t count, Stream stream);

// payload = quantized sum of 1 to kMostPeers payloads of the same grid and block, decoded and added in fp32 in the
// order given. As dequantize_into, dequantize_add for each of the others, and quantize, without the array between.
void requantize(const Quantizer& how, std::span<const std::byte* const> payloads, size_t count, std::byte* payload,
                Stream stream);

// Writes a header in front of the payload behind it. Of the header's 8 words the last becomes the checksum of payload
// and header, as codec/wire.h says.
void seal(std::byte* wire, const uint32_t (&header)[8], size_t payload_bytes, Stream stream);

}  // namespace pycoll::kernels::cuda
