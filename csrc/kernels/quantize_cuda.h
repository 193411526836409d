// Payloads of dense arrays on a CUDA device: the contracts of quantize.h, to the bit.
//
// Arrays and payloads are memory of the current device, payloads aligned to 4 bytes (to 16, they are read fastest).
// Calls return once they are enqueued on the stream; none waits for the device. They raise DeviceError and
// InvalidArgument.
#pragma once
#include <cstdint>
#include <span>

#include "kernels/device_cuda.h"
#include "kernels/quantize.h"
#include "kernels/values.h"

namespace pycoll::kernels::cuda {

inline constexpr size_t kMostPeers = 64;

// What becomes of decoded numbers: they are written, or added to what is there.
enum class Store { into, add };

void quantize(const Quantizer& how, const float* in, float* residual, size_t count, std::byte* payload, Stream stream);

// A payload of blocks of a grid.
struct Quantized {
  Grid grid;
  uint32_t block;
  const std::byte* payload;
  size_t count;
};
void dequantize(Store store, float* out, const Quantized& from, Stream stream);

// payload = quantized sum of 1 to kMostPeers payloads of the same grid and block, decoded and added in fp32 in the
// order given. As if each were dequantized, the first into an array and the others added to it, and that quantized.
void requantize(const Quantizer& how, std::span<const std::byte* const> payloads, size_t count, std::byte* payload,
                Stream stream);

// Numbers without blocks: f32 as they are, f16, bf16.
struct Plain {
  ValueFormat format;
  std::byte* payload;
  size_t count;
};
// Of in, or of in + residual where there is one, which becomes what is lost.
void narrow(const Plain& to, const float* in, float* residual, Stream stream);
void widen(Store store, float* out, const Plain& from, Stream stream);

}  // namespace pycoll::kernels::cuda
