#include "codec/cast.h"

#include <cstring>

#include "core/buffer.h"
#include "core/error.h"
#include "kernels/checksum.h"
#include "kernels/quantize.h"
#include "kernels/reduce.h"

namespace pycoll::codec {
namespace {

DType dtype_of(ValueFormat format) {
  return format == ValueFormat::f32 ? DType::f32 : format == ValueFormat::f16 ? DType::f16 : DType::bf16;
}

Buffer buffer_of(std::span<float> x) {
  return {reinterpret_cast<std::byte*>(x.data()), x.size(), DType::f32};
}

class Identity final : public Dense {
 public:
  CodecId id() const override { return CodecId::identity; }
  Blocks parameters() const override { return {.format = ValueFormat::f32}; }
  std::string describe() const override { return "identity"; }
  size_t most_bytes(size_t count) const override { return sizeof(WireHeader) + 4 * count; }

  size_t encode(std::span<const float> in, float* residual, const Moment&, Bytes wire) const override {
    const Bytes payload = wire.subspan(sizeof(WireHeader), in.size_bytes());
    const auto* const x = reinterpret_cast<const std::byte*>(in.data());
    if (residual) {
      const auto* const lost = reinterpret_cast<const std::byte*>(residual);
      kernels::reduce_into({payload.data(), in.size(), DType::f32}, {x, in.size(), DType::f32},
                           {lost, in.size(), DType::f32}, ReduceOp::sum);
      std::fill_n(residual, in.size(), 0.0f);
    } else if (!in.empty()) {
      std::memcpy(payload.data(), x, payload.size());
    }
    return seal(
        wire,
        {.codec = uint8_t(id()), .format = uint8_t(ValueFormat::f32), .count = in.size(), .bytes = payload.size()},
        kernels::checksum(payload));
  }
};

class Cast final : public Dense {
 public:
  explicit Cast(ValueFormat format) : format_(format) {}
  CodecId id() const override { return CodecId::cast; }
  Blocks parameters() const override { return {.format = format_}; }
  std::string describe() const override { return concat("cast ", name_of(dtype_of(format_))); }
  size_t most_bytes(size_t count) const override { return sizeof(WireHeader) + 2 * count; }

  size_t encode(std::span<const float> in, float* residual, const Moment&, Bytes wire) const override {
    const Bytes payload = wire.subspan(sizeof(WireHeader), 2 * in.size());
    kernels::halve(dtype_of(format_), in.data(), residual, in.size(), payload.data());
    return seal(wire, {.codec = uint8_t(id()), .format = uint8_t(format_), .count = in.size(), .bytes = payload.size()},
                kernels::checksum(payload));
  }

 private:
  const ValueFormat format_;
};

}  // namespace

std::unique_ptr<Dense> make_cast(ValueFormat format) {
  if (format == ValueFormat::f32) return std::make_unique<Identity>();
  return std::make_unique<Cast>(format);
}

size_t cast_bytes(ValueFormat format, size_t count) {
  return count * size_of(dtype_of(format));
}

void cast_into(std::span<float> out, ValueFormat format, ConstBytes payload) {
  if (format != ValueFormat::f32) {
    kernels::widen_into(out.data(), {payload.data(), out.size(), dtype_of(format)});
  } else if (!out.empty()) {
    std::memcpy(out.data(), payload.data(), payload.size());
  }
}

void cast_add(std::span<float> acc, ValueFormat format, ConstBytes payload) {
  if (format == ValueFormat::f32) {
    kernels::add_into(buffer_of(acc), {payload.data(), acc.size(), DType::f32}, ReduceOp::sum);
  } else {
    kernels::halves_add(dtype_of(format), acc.data(), payload.data(), acc.size());
  }
}

}  // namespace pycoll::codec
