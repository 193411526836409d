// Element types: their names and widths. Values are part of the wire format: append, never renumber.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace pycoll {

enum class DType : uint8_t { f16, bf16, f32, f64, i8, i16, i32, i64, u8, u16, u32, u64, boolean, c64, c128 };
inline constexpr int kDTypes = 15;

namespace detail {
struct DTypeInfo {
  std::string_view name;
  uint8_t bytes;
};
inline constexpr DTypeInfo kDTypeInfo[kDTypes] = {{"f16", 2}, {"bf16", 2}, {"f32", 4},  {"f64", 8}, {"i8", 1},
                                                  {"i16", 2}, {"i32", 4},  {"i64", 8},  {"u8", 1},  {"u16", 2},
                                                  {"u32", 4}, {"u64", 8},  {"bool", 1}, {"c64", 8}, {"c128", 16}};
}  // namespace detail

constexpr size_t size_of(DType t) {
  return detail::kDTypeInfo[size_t(t)].bytes;
}
constexpr std::string_view name_of(DType t) {
  return detail::kDTypeInfo[size_t(t)].name;
}
constexpr bool is_half(DType t) {
  return t == DType::f16 || t == DType::bf16;
}
constexpr bool is_complex(DType t) {
  return t == DType::c64 || t == DType::c128;
}
constexpr bool is_floating(DType t) {
  return t <= DType::f64 || is_complex(t);
}
constexpr bool is_integer(DType t) {
  return t >= DType::i8 && t <= DType::u64;
}

}  // namespace pycoll
