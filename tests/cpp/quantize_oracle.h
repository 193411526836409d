// The contract of kernels/quantize.h, checksum.h and philox.h, one element at a time.
#pragma once
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/philox.h"
#include "kernels/quantize.h"

namespace oracle {

using namespace pycoll;
using kernels::Grid;
using kernels::Quantizer;
using Memory = std::vector<std::byte>;
using Array = std::vector<float>;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Values of the codes 0 to 127 of an 8-bit float; those above the top are not written.
inline double fp8(Grid grid, int code) {
  const int digits = grid == Grid::e4m3 ? 3 : 2, bias = grid == Grid::e4m3 ? 7 : 15;
  const int exponent = code >> digits, fraction = code & ((1 << digits) - 1);
  return exponent ? std::ldexp(fraction + (1 << digits), exponent - bias - digits)
                  : std::ldexp(fraction, 1 - bias - digits);
}

inline float top_of(Grid grid) {
  switch (grid) {
    case Grid::int8: return 127;
    case Grid::int4: return 7;
    case Grid::e4m3: return 448;
    case Grid::e5m2: return 57344;
    case Grid::bit: return 1;
  }
  return 0;
}

// The code nearest to t; of two, the even one.
inline int nearest_fp8(Grid grid, float t) {
  const double size = std::fabs(double(t));
  int code = 0;
  while (fp8(grid, code + 1) <= std::min(size, double(top_of(grid)))) ++code;
  const double below = size - fp8(grid, code), above = fp8(grid, code + 1) - size;
  if (fp8(grid, code) < top_of(grid) && (above < below || (above == below && code % 2))) ++code;
  return code | (std::signbit(t) ? 0x80 : 0);
}

inline float value_of(Grid grid, int code) {
  switch (grid) {
    case Grid::int8: return float(int8_t(code));
    case Grid::int4: return float(code < 8 ? code : code - 16);
    case Grid::bit: return code ? -1.0f : 1.0f;
    default: return float(code & 0x80 ? -fp8(grid, code & 0x7f) : fp8(grid, code));
  }
}

inline float scale_of(Grid grid, const Array& x) {
  float absmax = 0;
  for (const float v : x) {
    if (!std::isfinite(v)) return kNan;
    absmax = std::max(absmax, std::fabs(v));
  }
  if (grid == Grid::bit) {
    float sum[32] = {};
    for (size_t i = 0; i < x.size(); ++i) sum[i % 32] += std::fabs(x[i]);
    for (int width = 16; width; width /= 2)
      for (int lane = 0; lane < width; ++lane) sum[lane] += sum[lane + width];
    return std::isfinite(sum[0]) ? sum[0] / float(x.size()) : kNan;
  }
  return absmax == 0 ? 0 : std::max(std::min(absmax, 0x1.fffffcp127f) / top_of(grid), 0x1p-126f);
}

inline float rounded(const Quantizer& how, float t, size_t i) {
  if (!how.stochastic) return std::nearbyint(t);
  const float below = std::floor(t), top = top_of(how.grid);
  const float random = float(kernels::philox_word(how.seed, how.step, how.stream, how.index + i) >> 8) * 0x1p-24f;
  return std::clamp(random < t - below ? below + 1 : below, -top, top);
}

inline int code_of(const Quantizer& how, float x, float scale, size_t i) {
  if (how.grid == Grid::bit) return std::isnan(scale) ? 0 : std::signbit(x);
  if (std::isnan(scale) || scale == 0) return 0;
  const float t = x * (1 / scale);
  switch (how.grid) {
    case Grid::int8: return int(rounded(how, t, i)) & 0xff;
    case Grid::int4: return int(rounded(how, t, i)) & 0xf;
    default: return nearest_fp8(how.grid, t);
  }
}

inline size_t bits_of(Grid grid) {
  return grid == Grid::bit ? 1 : grid == Grid::int4 ? 4 : 8;
}

struct Encoded {
  Memory payload;
  Array residual;  // as it is afterwards; empty if there was none
};

// `residual` is empty or as long as `in`.
inline Encoded encode(const Quantizer& how, const Array& in, Array residual) {
  const size_t blocks = (in.size() + how.block - 1) / how.block, scales = (4 * blocks + 15) / 16 * 16;
  const size_t bits = bits_of(how.grid);
  Memory payload(scales + (in.size() * bits + 7) / 8);
  for (size_t b = 0; b < blocks; ++b) {
    const size_t begin = b * how.block, end = std::min(begin + how.block, in.size());
    Array x(in.begin() + begin, in.begin() + end);
    if (!residual.empty())
      for (size_t i = begin; i < end; ++i) x[i - begin] += residual[i];
    const float scale = scale_of(how.grid, x);
    std::memcpy(payload.data() + 4 * b, &scale, 4);
    for (size_t i = begin; i < end; ++i) {
      const int code = code_of(how, x[i - begin], scale, i);
      payload[scales + i * bits / 8] |= std::byte(code << (i * bits % 8));
      if (residual.empty()) continue;
      residual[i] = std::isnan(scale) ? 0 : x[i - begin] - value_of(how.grid, code) * scale;
    }
  }
  return {payload, residual};
}

inline Array decode(Grid grid, uint32_t block, const Memory& payload, size_t count) {
  const size_t scales = ((count + block - 1) / block * 4 + 15) / 16 * 16, bits = bits_of(grid);
  Array out(count);
  for (size_t i = 0; i < count; ++i) {
    float scale;
    std::memcpy(&scale, payload.data() + i / block * 4, 4);
    const int code = (int(payload[scales + i * bits / 8]) >> (i * bits % 8)) & ((1 << bits) - 1);
    out[i] = std::isnan(scale) ? kNan : value_of(grid, code) * scale;
  }
  return out;
}

inline uint32_t checksum(const Memory& bytes) {
  uint32_t sum = uint32_t(bytes.size());
  for (size_t i = 0; 4 * i < bytes.size(); ++i) {
    uint32_t x = 0;
    std::memcpy(&x, bytes.data() + 4 * i, std::min<size_t>(4, bytes.size() - 4 * i));
    x += uint32_t(i) * 0x9e3779b1;
    x = (x ^ (x >> 16)) * 0x85ebca6b;
    x = (x ^ (x >> 13)) * 0xc2b2ae35;
    sum += x ^ (x >> 16);
  }
  return sum;
}

}  // namespace oracle
