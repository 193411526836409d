#include "codec/values.h"

#include <cmath>
#include <cstring>
#include <memory>

#include "kernels/quantize.h"
#include "kernels/reduce.h"

namespace pycoll::codec {
namespace {

using kernels::Grid;

struct Scaled {
  Grid grid;
  uint32_t block;
};
Scaled scaled(ValueFormat format) {
  return {format == ValueFormat::int8 ? Grid::int8 : Grid::int4, 1u << kernels::log_values_block(format)};
}
DType half_of(ValueFormat format) {
  return format == ValueFormat::f16 ? DType::f16 : DType::bf16;
}

}  // namespace

bool is_value_format(ValueFormat format) {
  return format <= ValueFormat::int4;
}

const char* name_of(ValueFormat format) {
  constexpr const char* names[kValueFormats] = {"f32", "f16", "bf16", "int8", "int4", "e4m3", "e5m2", "bit"};
  return int(format) < kValueFormats ? names[int(format)] : "unknown";
}

void write_values(std::byte* to, ValueFormat format, const float* values, size_t count) {
  if (count == 0) return;
  switch (format) {
    case ValueFormat::f32: std::memcpy(to, values, 4 * count); return;
    case ValueFormat::f16:
    case ValueFormat::bf16: kernels::narrow_into({to, count, half_of(format)}, values); return;
    default:
      kernels::quantize({.grid = scaled(format).grid, .block = scaled(format).block}, values, nullptr, count, to);
  }
}

void read_values(float* values, ValueFormat format, const std::byte* from, size_t count) {
  if (count == 0) return;
  switch (format) {
    case ValueFormat::f32: std::memcpy(values, from, 4 * count); return;
    case ValueFormat::f16:
    case ValueFormat::bf16: kernels::widen_into(values, {from, count, half_of(format)}); return;
    default: kernels::dequantize_into(scaled(format).grid, scaled(format).block, values, from, count);
  }
}

void subtract_values(float* values, ValueFormat format, const std::byte* from, size_t count) {
  const std::unique_ptr<float[]> carried(new float[count]);
  read_values(carried.get(), format, from, count);
  for (size_t i = 0; i < count; ++i) {
    const float lost = values[i] - carried[i];
    values[i] = std::isfinite(lost) ? lost : 0;
  }
}

}  // namespace pycoll::codec
