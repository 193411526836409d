#include "kernels/quantize.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/element.h"
#include "kernels/philox.h"

namespace pycoll::kernels {
namespace {

constexpr uint32_t kInfinity = 0x7f800000;

float top_of(Grid grid) {
  switch (grid) {
    case Grid::int8: return 127;
    case Grid::int4: return 7;
    case Grid::e4m3: return E4M3::top;
    case Grid::e5m2: return E5M2::top;
    case Grid::bit: return 1;
  }
  return 0;
}

// Scale of a block; NaN if something in it is not finite.
float scale_of(Grid grid, const float* x, size_t count) {
  if (grid == Grid::bit) {
    float sum[32] = {};
    for (size_t i = 0; i < count; ++i) sum[i % 32] += std::fabs(x[i]);
    for (size_t width = 16; width > 0; width /= 2)
      for (size_t lane = 0; lane < width; ++lane) sum[lane] += sum[lane + width];
    return sum[0] < INFINITY ? sum[0] / float(count) : quiet_nan<float>();
  }
  uint32_t absmax = 0;
  for (size_t i = 0; i < count; ++i) absmax = std::max(absmax, as<uint32_t>(x[i]) & 0x7fffffff);
  if (absmax >= kInfinity) return quiet_nan<float>();
  if (absmax == 0) return 0;
  return std::max(std::min(as<float>(absmax), 0x1.fffffcp127f) / top_of(grid), 0x1p-126f);
}

float decoded(Grid grid, uint32_t code, float scale) {
  if (std::isnan(scale)) return quiet_nan<float>();
  switch (grid) {
    case Grid::int8: return float(int8_t(code)) * scale;
    case Grid::int4: return float(int32_t(code << 28) >> 28) * scale;
    case Grid::e4m3: return widen_fp8<E4M3, float>(code) * scale;
    case Grid::e5m2: return widen_fp8<E5M2, float>(code) * scale;
    case Grid::bit: return code ? -scale : scale;
  }
  return 0;
}

uint32_t integer(float t, float top, const Quantizer& how, size_t i) {
  if (!how.stochastic) return uint32_t(int32_t(std::nearbyint(t)));
  const float below = std::floor(t);
  const float random = float(philox_word(how.seed, how.step, how.stream, how.index + i) >> 8) * 0x1p-24f;
  return uint32_t(int32_t(std::clamp(below + (random < t - below ? 1.0f : 0.0f), -top, top)));
}

uint32_t code_of(const Quantizer& how, float x, float scale, size_t i) {
  if (std::isnan(scale)) return 0;
  const float t = scale == 0 ? 0 : x * (1 / scale);
  switch (how.grid) {
    case Grid::int8: return integer(t, 127, how, i) & 0xff;
    case Grid::int4: return integer(t, 7, how, i) & 0xf;
    case Grid::e4m3: return narrow_fp8<E4M3>(t);
    case Grid::e5m2: return narrow_fp8<E5M2>(t);
    case Grid::bit: return as<uint32_t>(x) >> 31;
  }
  return 0;
}

// Bits of a code; divides 8.
size_t width_of(Grid grid) {
  return grid == Grid::bit ? 1 : grid == Grid::int4 ? 4 : 8;
}

void put(std::byte* codes, size_t width, size_t i, uint32_t code) {
  std::byte& at = codes[i * width / 8];
  const size_t shift = i * width % 8;
  at = (shift ? at : std::byte{0}) | std::byte(code << shift);
}

uint32_t get(const std::byte* codes, size_t width, size_t i) {
  return (uint32_t(codes[i * width / 8]) >> (i * width % 8)) & ((1u << width) - 1);
}

template <class Take>
void each_decoded(Grid grid, uint32_t block, const std::byte* payload, size_t count, Take take) {
  const std::byte* const codes = payload + scale_bytes(block, count);
  for (size_t i = 0; i < count; ++i) {
    float scale;
    std::memcpy(&scale, payload + i / block * 4, 4);
    take(i, decoded(grid, get(codes, width_of(grid), i), scale));
  }
}

}  // namespace

size_t scale_bytes(uint32_t block, size_t count) {
  return ((count + block - 1) / block * 4 + 15) / 16 * 16;
}

size_t quantized_bytes(Grid grid, uint32_t block, size_t count) {
  return scale_bytes(block, count) + (count * width_of(grid) + 7) / 8;
}

void quantize_part(const Quantizer& how, const float* in, float* residual, size_t count, std::byte* scales,
                   std::byte* codes) {
  float x[kMostBlock];
  for (size_t begin = 0; begin < count; begin += how.block) {
    const size_t n = std::min<size_t>(how.block, count - begin);
    for (size_t i = 0; i < n; ++i) x[i] = residual ? in[begin + i] + residual[begin + i] : in[begin + i];
    const float scale = scale_of(how.grid, x, n);
    std::memcpy(scales + begin / how.block * 4, &scale, 4);
    for (size_t i = 0; i < n; ++i) {
      const uint32_t code = code_of(how, x[i], scale, begin + i);
      put(codes, width_of(how.grid), begin + i, code);
      if (residual) residual[begin + i] = std::isnan(scale) ? 0 : x[i] - decoded(how.grid, code, scale);
    }
  }
}

void quantize(const Quantizer& how, const float* in, float* residual, size_t count, std::byte* payload) {
  const size_t scales = (count + how.block - 1) / how.block * 4, padded = scale_bytes(how.block, count);
  std::memset(payload + scales, 0, padded - scales);
  quantize_part(how, in, residual, count, payload, payload + padded);
}

void dequantize_into(Grid grid, uint32_t block, float* out, const std::byte* payload, size_t count) {
  each_decoded(grid, block, payload, count, [out](size_t i, float value) { out[i] = canonical(value); });
}

void dequantize_add(Grid grid, uint32_t block, float* acc, const std::byte* payload, size_t count) {
  each_decoded(grid, block, payload, count, [acc](size_t i, float value) { acc[i] = canonical(acc[i] + value); });
}

void halve(DType half, const float* in, float* residual, size_t count, std::byte* halves) {
  for (size_t i = 0; i < count; ++i) {
    const float x = residual ? in[i] + residual[i] : in[i];
    const auto code = uint16_t(half == DType::f16 ? narrow_f16(x) : narrow_bf16(x));
    std::memcpy(halves + 2 * i, &code, 2);
    const float value = half == DType::f16 ? widen_f16<float>(code) : widen_bf16<float>(code);
    if (residual) residual[i] = std::fabs(value) < INFINITY ? x - value : 0;
  }
}

void halves_add(DType half, float* acc, const std::byte* halves, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    uint16_t code;
    std::memcpy(&code, halves + 2 * i, 2);
    acc[i] = canonical(acc[i] + (half == DType::f16 ? widen_f16<float>(code) : widen_bf16<float>(code)));
  }
}

}  // namespace pycoll::kernels
