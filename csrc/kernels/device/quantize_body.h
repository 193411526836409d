// Block quantization on a device: the contract of quantize.h.
//
// Every element is read once and stays in registers until its block's scale is known; the exception is `bit` in blocks
// above kSpan, which is read twice. A warp holds kSpan neighbouring elements: longer blocks are of several warps.
#pragma once
#include <type_traits>

#include "kernels/device/sinks.h"
#include "kernels/device/sources.h"

namespace pycoll::kernels::device {
namespace {

// Bits of |x|: in the order of magnitudes, infinity and NaN above all numbers.
PYCOLL_DEVICE uint32_t size_of(float x) {
  return as<uint32_t>(x) & 0x7fffffffu;
}

// Shared memory of block_sizes.
struct WarpSizes {
  uint32_t of[kWarps];
};

// size[r]: the largest of this thread's pack in row r; becomes the largest of that pack's block.
template <class C>
PYCOLL_DEVICE void block_sizes(C& on, uint32_t log_block, uint32_t (&size)[kRows]) {
  PYCOLL_UNROLL
  for (uint32_t r = 0; r < kRows; ++r) {
    if (log_block >= 7) {
      size[r] = on.max(size[r]);
    } else {
      for (uint32_t distance = 1; distance * kPack < 1u << log_block; distance *= 2) {
        const uint32_t other = on.shuffle(size[r], lane(on) ^ distance);
        size[r] = size[r] > other ? size[r] : other;
      }
    }
  }
  PYCOLL_UNROLL
  for (uint32_t rows = 1; rows < kRows; rows *= 2) {
    if (log_block < 7 + (rows == 1 ? 1u : 2u)) break;
    PYCOLL_UNROLL
    for (uint32_t r = 0; r < kRows; r += 2 * rows) {
      PYCOLL_UNROLL
      for (uint32_t s = 0; s < rows; ++s)
        size[r + s] = size[r + rows + s] = size[r + s] > size[r + rows + s] ? size[r + s] : size[r + rows + s];
    }
  }
  if (log_block <= 9) return;
  WarpSizes& sizes = on.template shared<WarpSizes>();
  if (lane(on) == 0) sizes.of[warp(on)] = size[0];
  on.sync();
  const uint32_t warps = 1u << (log_block - 9), begin = warp(on) / warps * warps;
  for (uint32_t w = begin; w < begin + warps; ++w) size[0] = size[0] > sizes.of[w] ? size[0] : sizes.of[w];
  PYCOLL_UNROLL
  for (uint32_t r = 1; r < kRows; ++r) size[r] = size[0];
}

template <class Codes>
PYCOLL_DEVICE float scale_of(uint32_t absmax) {
  if (absmax >= kInfinity) return quiet_nan<float>();
  if (absmax == 0) return 0;
  const float largest = as<float>(absmax), bounded = largest < 0x1.fffffcp127f ? largest : 0x1.fffffcp127f;
  const float scale = bounded / Codes::top;
  return scale > 0x1p-126f ? scale : 0x1p-126f;
}

// The padding between scales and codes, which no block's elements reach.
template <class C>
PYCOLL_DEVICE void store_padding(C& on, const Payload& to) {
  const uint64_t scale = to.scales() + on.thread();
  if (on.block() == 0 && scale < (to.scales() + 3) / 4 * 4) reinterpret_cast<uint32_t*>(to.data)[scale] = 0;
}

// One tile of int8, int4, e4m3, e5m2.
template <Grid grid, class Source, class C>
PYCOLL_DEVICE void quantize_tile(C& on, const Quantizer& how, const Source& from, const Payload& to) {
  using Codes = CodesOf<grid>;
  const uint64_t first = first_element(on);
  float x[kRows][kPack];
  uint32_t size[kRows];
  PYCOLL_UNROLL
  for (uint32_t r = 0; r < kRows; ++r) {
    from.load(first + r * kRow, x[r]);
    size[r] = 0;
    PYCOLL_UNROLL
    for (uint32_t c = 0; c < kPack; ++c) size[r] = size[r] > size_of(x[r][c]) ? size[r] : size_of(x[r][c]);
  }
  block_sizes(on, to.log_block, size);
  store_padding(on, to);
  PYCOLL_UNROLL
  for (uint32_t r = 0; r < kRows; ++r) {
    const uint64_t i = first + r * kRow;
    if (i >= to.count) continue;
    const float scale = scale_of<Codes>(size[r]), inverse = 1 / scale;
    const bool finite = scale == scale;
    if ((i & ((1u << to.log_block) - 1)) == 0) *to.scale(i) = scale;
    float dither[kPack] = {};
    if (how.stochastic) random(how, i, dither);
    uint32_t codes = 0;
    PYCOLL_UNROLL
    for (uint32_t c = 0; c < kPack; ++c) {
      float t = scale > 0 ? x[r][c] * inverse : 0;
      if (how.stochastic) {
        const float below = floorf(t), up = below + (dither[c] < t - below ? 1.0f : 0.0f);
        t = up < -Codes::top ? -Codes::top : up > Codes::top ? Codes::top : up;
      }
      const uint32_t code = Codes::code(t);
      if (i + c < to.count) codes |= code << (c * Codes::width);
      x[r][c] = finite ? x[r][c] - Codes::value(code) * scale : 0;
    }
    const uint64_t left = to.count - i;
    store_bits(to.codes() + i * Codes::width / 8, codes, (left < kPack ? left : kPack) * Codes::width);
    from.lose(i, x[r]);
  }
}

// --- bit: lane l of a warp has elements l, l + 32, ...: the order in which |x| is summed.

inline constexpr uint32_t kBitRows = kSpan / kWarp;

// Elements of a block of threads.
inline constexpr uint64_t bit_tile(uint32_t log_block) {
  return uint64_t(kWarps) * (1u << log_block > kSpan ? 1u << log_block : kSpan);
}

template <class Source>
PYCOLL_DEVICE void load_bit_rows(const Source& from, uint64_t i, uint64_t count, float (&x)[kBitRows]) {
  PYCOLL_UNROLL
  for (uint32_t r = 0; r < kBitRows; ++r) x[r] = i + r * kWarp < count ? from.at(i + r * kWarp) : 0;
}

// Mean of the magnitudes whose running sums the lanes have.
template <class C>
PYCOLL_DEVICE float mean(C& on, float sum, uint64_t elements) {
  for (uint32_t width = kWarp / 2; width > 0; width /= 2) sum += on.shuffle(sum, (lane(on) + width) % kWarp);
  sum = on.shuffle(sum, 0);
  return size_of(sum) < kInfinity ? sum / float(elements) : quiet_nan<float>();
}

template <class Source, class C>
PYCOLL_DEVICE void quantize_bits(C& on, const Source& from, const Payload& to) {
  const uint32_t block = 1u << to.log_block, rows = block / kWarp;
  const uint32_t chunks = block > kSpan ? block / kSpan : 1;
  const uint64_t first = (uint64_t(on.block()) * kWarps + warp(on)) * chunks * kSpan + lane(on);
  store_padding(on, to);
  float x[kBitRows], sum = 0, scale = 0;  // lane r: the scale of row r
  for (uint32_t chunk = 0; chunk < chunks; ++chunk) {
    load_bit_rows(from, first + chunk * kSpan, to.count, x);
    PYCOLL_UNROLL
    for (uint32_t r = 0; r < kBitRows; ++r) {
      sum += as<float>(size_of(x[r]));
      if ((chunk * kBitRows + r + 1) % rows) continue;
      const uint64_t begin = first - lane(on) + (chunk * kBitRows + r + 1 - rows) * kWarp;
      const uint64_t left = begin < to.count ? to.count - begin : 0;
      const float of_block = mean(on, sum, left < block ? left : block);
      if (lane(on) == 0 && left) *to.scale(begin) = of_block;
      if (lane(on) / rows == r / rows) scale = of_block;
      sum = 0;
    }
  }
  for (uint32_t chunk = 0; chunk < chunks; ++chunk) {
    const uint64_t at = first + chunk * kSpan;
    if (chunks > 1) load_bit_rows(from, at, to.count, x);
    uint32_t word = 0;  // lane r: the codes of row r
    PYCOLL_UNROLL
    for (uint32_t r = 0; r < kBitRows; ++r) {
      const float size = on.shuffle(scale, r);
      const bool finite = size == size, minus = as<uint32_t>(x[r]) >> 31;
      const uint32_t bits = on.ballot(minus && finite);
      if (lane(on) == r) word = bits;
      from.lose(at + r * kWarp, finite ? x[r] - (minus ? -size : size) : 0);
    }
    const uint64_t row = at - lane(on) + uint64_t(lane(on)) * kWarp;
    if (lane(on) < kBitRows && row < to.count) store_bits(to.codes() + row / 8, word, to.count - row);
  }
}

// --- Back.

template <Grid grid, class Sink, class C>
PYCOLL_DEVICE void dequantize_tile(C& on, const Payload& from, const Floats& out) {
  const uint64_t first = first_element(on);
  PYCOLL_UNROLL
  for (uint32_t r = 0; r < kRows; ++r) {
    const uint64_t i = first + r * kRow;
    if (i >= from.count) continue;
    float x[kPack];
    decode<grid>(from, i, x);
    PYCOLL_UNROLL
    for (uint32_t c = 0; c < kPack; ++c) x[c] = canonical(x[c]);
    Sink::take(out, i, x);
  }
}

// --- As kernels of blocks().

template <Grid grid, class Source>
struct Quantize {
  Quantizer how;
  Source from;
  Payload to;

  uint64_t blocks() const {
    const uint64_t tile = grid == Grid::bit ? bit_tile(to.log_block) : kTile;
    return (to.count + tile - 1) / tile;
  }
  template <class C>
  PYCOLL_DEVICE void operator()(C& on) const {
    if constexpr (grid == Grid::bit) {
      quantize_bits(on, from, to);
    } else {
      quantize_tile<grid>(on, how, from, to);
    }
  }
};

template <Grid grid, class Sink>
struct Dequantize {
  Payload from;
  Floats out;

  uint64_t blocks() const { return (from.count + kTile - 1) / kTile; }
  template <class C>
  PYCOLL_DEVICE void operator()(C& on) const {
    dequantize_tile<grid, Sink>(on, from, out);
  }
};

// body(constant), a std::integral_constant that is `grid`.
template <class Body>
void with_grid(Grid grid, Body body) {
  switch (grid) {
    case Grid::int8: return body(std::integral_constant<Grid, Grid::int8>());
    case Grid::int4: return body(std::integral_constant<Grid, Grid::int4>());
    case Grid::e4m3: return body(std::integral_constant<Grid, Grid::e4m3>());
    case Grid::e5m2: return body(std::integral_constant<Grid, Grid::e5m2>());
    case Grid::bit: return body(std::integral_constant<Grid, Grid::bit>());
  }
}

}  // namespace
}  // namespace pycoll::kernels::device
