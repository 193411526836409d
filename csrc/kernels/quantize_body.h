// The kernels of quantize.h over one instruction set, Isa. A block is read twice, the second time from L1: once for its
// scale, once for its codes and what they lose. A shorter last block is padded with zeros on the stack.
//
// In an anonymous namespace, and nothing from std is called, as reduce_body.h says why.
#pragma once
#include "kernels/checksum_body.h"
#include "kernels/grid.h"
#include "kernels/philox_body.h"
#include "kernels/quantize_table.h"
#include "kernels/reduce_body.h"

namespace pycoll::kernels {
namespace {

template <class F>
F load_floats(const float* from) {
  return load<F>(reinterpret_cast<const std::byte*>(from));
}
template <class F>
void store_floats(float* to, F v) {
  store(reinterpret_cast<std::byte*>(to), v);
}

// What is quantized: in, or in + residual, which then takes what is lost.
struct Plain {
  const float* in;
  template <class F>
  F at(size_t i) const {
    return load_floats<F>(in + i);
  }
  template <class F>
  void lose(size_t, F) const {}
  Plain from(size_t i) const { return {in + i}; }
};

struct Fed {
  const float* in;
  float* residual;
  template <class F>
  F at(size_t i) const {
    return load_floats<F>(in + i) + load_floats<F>(residual + i);
  }
  template <class F>
  void lose(size_t i, F lost) const {
    store_floats(residual + i, lost);
  }
  Fed from(size_t i) const { return {in + i, residual + i}; }
};

// Lane l becomes lane (l + by) % lanes.
template <int by, class V, size_t... lane>
V rotate(V v, std::index_sequence<lane...>) {
  return __builtin_shufflevector(v, v, ((lane + by) % sizeof...(lane))...);
}
// combine(... combine(v, v rotated by half of the lanes) ..., by 1): lane 0 holds all.
template <int by, class V, class Combine>
LaneOf<V> fold(V v, Combine combine) {
  if constexpr (by == 0) {
    return v[0];
  } else {
    return fold<by / 2>(combine(v, rotate<by>(v, std::make_index_sequence<sizeof(V) / sizeof(v[0])>())), combine);
  }
}

template <class Isa, class Source>
uint32_t absmax_of(const Source& x, size_t count) {
  using Bits = Vector<int32_t, Isa::width>;
  const auto larger = [](Bits a, Bits b) { return a > b ? a : b; };
  Bits most{};
  for (size_t i = 0; i < count; i += kLanes<Isa>) {
    most = larger(most, as<Bits>(x.template at<Floats<Isa>>(i)) & 0x7fffffff);
  }
  return uint32_t(fold<int(kLanes<Isa>) / 2>(most, larger));
}

template <class Isa, class Source>
float sum_of_sizes(const Source& x, size_t count) {
  using F = Floats<Isa>;
  using U = BitsOf<F>;
  constexpr size_t vectors = kGroup / kLanes<Isa>;
  F sums[vectors] = {};
  for (size_t i = 0; i < count; i += kGroup) {
    for (size_t v = 0; v < vectors; ++v) {
      sums[v] += as<F>(U(as<U>(x.template at<F>(i + v * kLanes<Isa>)) & 0x7fffffffu));
    }
  }
  for (size_t width = vectors / 2; width > 0; width /= 2) {
    for (size_t v = 0; v < width; ++v) sums[v] += sums[v + width];
  }
  return fold<int(kLanes<Isa>) / 2>(sums[0], [](F a, F b) { return a + b; });
}

// `padded` elements of which the first `count` are not padding.
template <class Isa, class Grid, class Source>
float scale_of(const Source& x, size_t padded, size_t count) {
  if constexpr (Grid::has_scale_of_mean) {
    const float sum = sum_of_sizes<Isa>(x, padded);
    return sum < __builtin_inff() ? sum / float(count) : quiet_nan<float>();
  } else {
    const uint32_t absmax = absmax_of<Isa>(x, padded);
    if (absmax >= 0x7f800000) return quiet_nan<float>();
    if (absmax == 0) return 0;
    const float scale = as<float>(absmax < 0x7f7ffffe ? absmax : 0x7f7ffffe) / Grid::top;
    return scale > 0x1p-126f ? scale : 0x1p-126f;
  }
}

template <class Isa, class Grid, class Source, class Rounding>
void encode(const Source& x, size_t count, const Rounding& rounding, float scale, std::byte* codes) {
  using F = Floats<Isa>;
  const F scales = splat<F>(scale), inverses = splat<F>(Grid::has_scale_of_mean ? 1 : 1 / scale);
  for (size_t i = 0; i < count; i += kGroup) {
    Codes<Isa> group;
    for (size_t v = 0; v < kGroup / kLanes<Isa>; ++v) {
      const size_t at = i + v * kLanes<Isa>;
      const F value = x.template at<F>(at);
      group[v] = Grid::code(F(value * inverses), rounding, at);
      x.lose(at, F(value - Grid::template value<F>(group[v]) * scales));
    }
    Grid::template put<Isa>(codes + i * Grid::bits / 8, group);
  }
}

template <class Isa, class Grid, class Source>
void encode_block(const Quantizer& how, const Source& x, size_t padded, float scale, std::byte* codes) {
  using F = Floats<Isa>;
  if (scale != scale || (scale == 0 && !Grid::has_scale_of_mean)) {
    memset(codes, 0, padded * Grid::bits / 8);
    for (size_t i = 0; i < padded; i += kLanes<Isa>) x.lose(i, scale == 0 ? x.template at<F>(i) : F{});
    return;
  }
  if constexpr (Grid::rounds) {
    if (how.stochastic) {
      uint32_t words[kMostBlock + kPhiloxExcess];
      const size_t skipped = how.index % 4;
      philox_words<Isa>(words, padded + skipped, how.index / 4, how.step, how.stream, how.seed);
      return encode<Isa, Grid>(x, padded, Stochastic{words + skipped}, scale, codes);
    }
  }
  encode<Isa, Grid>(x, padded, Nearest{}, scale, codes);
}

// A last block of `count` elements, padded with zeros. Returns its scale.
template <class Isa, class Grid>
float encode_padded(const Quantizer& how, const float* in, float* residual, size_t count, std::byte* codes) {
  const size_t padded = (count + kGroup - 1) / kGroup * kGroup;
  float all_in[kMostBlock] = {}, all_residual[kMostBlock] = {}, scale;
  std::byte all_codes[kMostBlock];
  memcpy(all_in, in, count * 4);
  if (residual) {
    const Fed x{all_in, all_residual};
    memcpy(all_residual, residual, count * 4);
    scale = scale_of<Isa, Grid>(x, padded, count);
    encode_block<Isa, Grid>(how, x, padded, scale, all_codes);
    memcpy(residual, all_residual, count * 4);
  } else {
    const Plain x{all_in};
    scale = scale_of<Isa, Grid>(x, padded, count);
    encode_block<Isa, Grid>(how, x, padded, scale, all_codes);
  }
  memcpy(codes, all_codes, (count * Grid::bits + 7) / 8);
  return scale;
}

// The scale of a block is computed before the block in front of it is encoded: its divisions take as long as half of
// that, and nothing waits for them.
template <class Isa, class Grid, class Source>
void encode_whole(const Quantization& job, const Source& x, size_t blocks) {
  Quantizer how = job.how;
  const size_t block = how.block;
  float scale = blocks ? scale_of<Isa, Grid>(x, block, block) : 0;
  for (size_t b = 0; b < blocks; ++b, how.index += block) {
    const float next = b + 1 < blocks ? scale_of<Isa, Grid>(x.from((b + 1) * block), block, block) : 0;
    encode_block<Isa, Grid>(how, x.from(b * block), block, scale, job.codes + b * block * Grid::bits / 8);
    store(job.scales + b * 4, scale);
    scale = next;
  }
}

template <class Isa, class Grid>
void quantize(const Quantization& job) {
  const size_t blocks = job.count / job.how.block, whole = blocks * job.how.block;
  float* const residual = job.residual ? job.residual + whole : nullptr;
  if (job.residual) {
    encode_whole<Isa, Grid>(job, Fed{job.in, job.residual}, blocks);
  } else {
    encode_whole<Isa, Grid>(job, Plain{job.in}, blocks);
  }
  if (whole == job.count) return;
  Quantizer how = job.how;
  how.index += whole;
  store(job.scales + blocks * 4,
        encode_padded<Isa, Grid>(how, job.in + whole, residual, job.count - whole, job.codes + whole * Grid::bits / 8));
}

// What becomes of a decoded value.
struct Into {
  template <class F>
  static void take(float* out, F value) {
    store_floats(out, canonical(value));
  }
};
struct Add {
  template <class F>
  static void take(float* acc, F value) {
    store_floats(acc, canonical(F(load_floats<F>(acc) + value)));
  }
};

template <class Isa, class Grid, class Sink>
void decode_group(float* out, const std::byte* codes, float scale) {
  Values<Isa> values;
  Grid::template get<Isa>(codes, values);
  for (size_t v = 0; v < kGroup / kLanes<Isa>; ++v) {
    Sink::take(out + v * kLanes<Isa>, Floats<Isa>(values[v] * scale));
  }
}

template <class Isa, class Grid, class Sink>
void decode_rest(float* out, const std::byte* codes, float scale, size_t count) {
  float group[kGroup] = {};
  std::byte bytes[kGroup] = {};
  memcpy(group, out, count * 4);
  memcpy(bytes, codes, (count * Grid::bits + 7) / 8);
  decode_group<Isa, Grid, Sink>(group, bytes, scale);
  memcpy(out, group, count * 4);
}

template <class Isa, class Grid, class Sink>
void dequantize(const Dequantization& job) {
  for (size_t begin = 0; begin < job.count; begin += job.block) {
    const size_t end = job.count - begin < job.block ? job.count : begin + job.block;
    const float scale = load<float>(job.scales + begin / job.block * 4);
    size_t i = begin;
    for (; i + kGroup <= end; i += kGroup) {
      decode_group<Isa, Grid, Sink>(job.out + i, job.codes + i * Grid::bits / 8, scale);
    }
    if (i < end) decode_rest<Isa, Grid, Sink>(job.out + i, job.codes + i * Grid::bits / 8, scale, end - i);
  }
}

// E is Float16 or BFloat16 of reduce_body.h; F a vector, or float for the rest.
template <class E, class F, class Source>
void halve_at(const Source& x, size_t i, std::byte* halves) {
  const F value = x.template at<F>(i);
  E::write(halves + 2 * i, value);
  const F written = E::template read<F>(halves + 2 * i);
  x.lose(i, F(written - written == F{} ? value - written : F{}));
}
template <class Isa, class E, class Source>
void halve_all(const Source& x, size_t count, std::byte* halves) {
  size_t i = 0;
  for (; i + kLanes<Isa> <= count; i += kLanes<Isa>) halve_at<E, Floats<Isa>>(x, i, halves);
  for (; i < count; ++i) {
    opaque(i);
    halve_at<E, float>(x, i, halves);
  }
}
template <class Isa, class E>
void halve(const float* in, float* residual, size_t count, std::byte* halves) {
  if (residual) {
    halve_all<Isa, E>(Fed{in, residual}, count, halves);
  } else {
    halve_all<Isa, E>(Plain{in}, count, halves);
  }
}

template <class Isa, class E>
void halves_add(float* acc, const std::byte* halves, size_t count) {
  auto* const to = reinterpret_cast<std::byte*>(acc);
  combine<Sum, Direct<Isa, float>, Direct<Isa, float>, E>(to, to, halves, count);
}

template <class Isa, class Grid>
constexpr void fill_grid(QuantizeTable& table, kernels::Grid grid) {
  table.quantize[int(grid)] = quantize<Isa, Grid>;
  table.into[int(grid)] = dequantize<Isa, Grid, Into>;
  table.add[int(grid)] = dequantize<Isa, Grid, Add>;
}

template <class Isa, class E>
constexpr void fill_halves(QuantizeTable& table, Half half) {
  table.halve[int(half)] = halve<Isa, E>;
  table.halves_add[int(half)] = halves_add<Isa, E>;
}

template <class Isa>
constexpr QuantizeTable quantize_table_of() {
  QuantizeTable table{};
  fill_grid<Isa, Int8Grid>(table, kernels::Grid::int8);
  fill_grid<Isa, Int4Grid>(table, kernels::Grid::int4);
  fill_grid<Isa, Fp8Grid<E4M3>>(table, kernels::Grid::e4m3);
  fill_grid<Isa, Fp8Grid<E5M2>>(table, kernels::Grid::e5m2);
  fill_grid<Isa, BitGrid>(table, kernels::Grid::bit);
  fill_halves<Isa, Float16<Isa>>(table, Half::f16);
  fill_halves<Isa, BFloat16<Isa>>(table, Half::bf16);
  table.mixed_sum = mixed_sum<Isa>;
  return table;
}

}  // namespace
}  // namespace pycoll::kernels
