// Block quantization: float32 to 8, 4 or 1 bit with one scale a block, and back.
//
// A payload is scales (f32, one a block of `block` elements, the last block may be shorter), zero bytes up to a
// multiple of 16, then codes in element order, without padding between blocks; bits of the last byte that no element
// uses are 0. With x = in[i], or in[i] + residual[i] rounded once, and t = x * (1 / scale), both rounded once:
//   int8  round(t), -127 to 127; top = 127
//   int4  round(t), -7 to 7, two's complement nibbles, the even element in the low one; top = 7
//   e4m3, e5m2  OCP 8-bit floats of t, to nearest even; top = 448 or 57344
//   bit   1 where the sign bit is set, lowest bit first; stands for scale or -scale
// round is to nearest even; or, stochastic, floor(t) + (random < t - floor(t)), clamped to -top and top, where random
// is the upper 24 bits of the element's Philox word (kernels/philox.h) times 2^-24. scale = max(min(absmax,
// 0x1.fffffcp127) / top, 2^-126), so that neither 1 / scale nor top * scale is infinite. Of `bit` it is the mean of
// |x|: 32 running sums from 0, element i of the block added to sum i mod 32 in ascending order, then sum[l] += sum[l +
// w] for w = 16, 8, 4, 2, 1; sum[0] / elements of the block. A code decodes to its value * scale, rounded once.
// residual becomes x - decoded, rounded once. A block of zeros has scale 0 and codes 0 (`bit`: the signs); its residual
// is x. A block with a NaN or an infinity in it, or whose sum of `bit` overflows, has scale NaN (7fc00000) and codes 0,
// and decodes to NaN everywhere; what it loses is not fed back (residual 0). Denormals count as what they are, in the
// default floating-point environment. No fused multiply-add. Every NaN that is stored is 7fc00000. Identical bits on
// every instruction set and on CUDA.
#pragma once
#include <cstddef>
#include <cstdint>

#include "core/dtype.h"

namespace pycoll::kernels {

enum class Grid : uint8_t { int8, int4, e4m3, e5m2, bit };
inline constexpr int kGrids = 5;

// Blocks are powers of two between these.
inline constexpr uint32_t kLeastBlock = 32, kMostBlock = 4096;

struct Quantizer {
  Grid grid = Grid::int8;
  uint32_t block = 256;
  bool stochastic = false;                 // int8, int4: rounds up with the probability of the remainder
  uint64_t seed = 0, step = 0, index = 0;  // of random numbers (kernels/philox.h): index of element 0
  uint32_t stream = 0;
};

// Bytes of the scales of `count` elements, padding included; and of scales and codes.
size_t scale_bytes(uint32_t block, size_t count);
size_t quantized_bytes(Grid grid, uint32_t block, size_t count);
// Quantizes in, or in + residual where there is one; residual becomes what is lost, (in + residual) - decoded.
void quantize(const Quantizer& how, const float* in, float* residual, size_t count, std::byte* payload);
void dequantize_into(Grid grid, uint32_t block, float* out, const std::byte* payload, size_t count);
void dequantize_add(Grid grid, uint32_t block, float* acc, const std::byte* payload, size_t count);

// Halves, f16 or bf16: in, or in + residual, rounded to nearest even; residual becomes what is lost, or 0 where the
// half is not finite. And acc += halves.
void halve(DType half, const float* in, float* residual, size_t count, std::byte* halves);
void halves_add(DType half, float* acc, const std::byte* halves, size_t count);

}  // namespace pycoll::kernels
