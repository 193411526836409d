// Block quantization: float32 to 8, 4 or 1 bit with one scale a block, and back.
//
// A payload is scales (f32, one a block of `block` elements, the last block may be shorter), zero bytes up to a
// multiple of 16, then codes in element order, without padding between blocks:
//   int8  round(x / scale), -127 to 127; scale = absmax / 127
//   int4  round(x / scale), -7 to 7, two's complement nibbles, the even element in the low one; scale = absmax / 7
//   e4m3, e5m2  OCP 8-bit floats of x / scale; scale = absmax / 448 or 57344; saturating
//   bit   1 where the sign bit is set, lowest bit first; scale = mean of |x|, summed as below
// A block with a NaN or an infinity in it has scale NaN (7fc00000) and codes 0, and decodes to NaN everywhere; what it
// loses is not fed back (residual 0). A block of zeros has scale 0 and codes 0. Denormals count as what they are.
// Identical bits on every instruction set and on CUDA.
#pragma once
#include <cstddef>
#include <cstdint>

namespace pycoll::kernels {

enum class Grid : uint8_t { int8, int4, e4m3, e5m2, bit };

struct Quantizer {
  Grid grid = Grid::int8;
  uint32_t block = 256;
  bool stochastic = false;                 // int8, int4: rounds up with the probability of the remainder
  uint64_t seed = 0, step = 0, index = 0;  // of random numbers (kernels/philox.h): index of element 0
  uint32_t stream = 0;
};

size_t quantized_bytes(Grid grid, uint32_t block, size_t count);
// Quantizes in, or in + residual where there is one; residual becomes what is lost, (in + residual) - decoded.
void quantize(const Quantizer& how, const float* in, float* residual, size_t count, std::byte* payload);
void dequantize_into(Grid grid, uint32_t block, float* out, const std::byte* payload, size_t count);
void dequantize_add(Grid grid, uint32_t block, float* acc, const std::byte* payload, size_t count);

}  // namespace pycoll::kernels
