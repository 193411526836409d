// Numbers as they are, in f32, or rounded to halves: the contract of halve in quantize.h.
#pragma once
#include <type_traits>

#include "kernels/device/sinks.h"
#include "kernels/device/sources.h"
#include "kernels/values.h"

namespace pycoll::kernels::device {
namespace {

template <ValueFormat format>
struct Written {
  using Stored = uint16_t;
  PYCOLL_DEVICE static Stored narrow(float x) {
    return Stored(format == ValueFormat::f16 ? narrow_f16(x) : narrow_bf16(x));
  }
  PYCOLL_DEVICE static float widen(Stored half) {
    return canonical(format == ValueFormat::f16 ? widen_f16<float>(half) : widen_bf16<float>(half));
  }
};
template <>
struct Written<ValueFormat::f32> {
  using Stored = float;
  PYCOLL_DEVICE static Stored narrow(float x) { return x; }
  PYCOLL_DEVICE static float widen(Stored x) { return x; }
};

template <ValueFormat format>
using Numbers = Elements<typename Written<format>::Stored>;

// One tile; what is not finite is not fed back.
template <ValueFormat format, class Source, class C>
PYCOLL_DEVICE void narrow_tile(C& on, const Source& from, const Numbers<format>& to) {
  const uint64_t first = first_element(on);
  PYCOLL_UNROLL
  for (uint32_t r = 0; r < kRows; ++r) {
    const uint64_t i = first + r * kRow;
    if (i >= to.count) continue;
    float x[kPack];
    typename Written<format>::Stored y[kPack];
    from.load(i, x);
    PYCOLL_UNROLL
    for (uint32_t c = 0; c < kPack; ++c) {
      y[c] = Written<format>::narrow(x[c]);
      const float written = Written<format>::widen(y[c]);
      x[c] = written - written == 0 ? x[c] - written : 0;
    }
    to.store(i, y);
    from.lose(i, x);
  }
}

template <ValueFormat format, class Source>
struct Narrow {
  Source from;
  Numbers<format> to;

  uint64_t blocks() const { return (to.count + kTile - 1) / kTile; }
  template <class C>
  PYCOLL_DEVICE void operator()(C& on) const {
    narrow_tile<format>(on, from, to);
  }
};

template <ValueFormat format, class Sink>
struct Widen {
  Numbers<format> from;
  Floats out;

  uint64_t blocks() const { return (from.count + kTile - 1) / kTile; }
  template <class C>
  PYCOLL_DEVICE void operator()(C& on) const {
    const uint64_t first = first_element(on);
    PYCOLL_UNROLL
    for (uint32_t r = 0; r < kRows; ++r) {
      const uint64_t i = first + r * kRow;
      if (i >= from.count) continue;
      typename Written<format>::Stored y[kPack];
      float x[kPack];
      from.load(i, y);
      PYCOLL_UNROLL
      for (uint32_t c = 0; c < kPack; ++c) x[c] = Written<format>::widen(y[c]);
      Sink::take(out, i, x);
    }
  }
};

// body(constant), a std::integral_constant that is `format`: f32, f16 or bf16.
template <class Body>
void with_cast(ValueFormat format, Body body) {
  switch (format) {
    case ValueFormat::f32: return body(std::integral_constant<ValueFormat, ValueFormat::f32>());
    case ValueFormat::f16: return body(std::integral_constant<ValueFormat, ValueFormat::f16>());
    default: return body(std::integral_constant<ValueFormat, ValueFormat::bf16>());
  }
}

}  // namespace
}  // namespace pycoll::kernels::device
