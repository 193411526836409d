// Reduction operators, and which element types each is defined for.
#pragma once
#include <cstdint>
#include <string_view>

#include "core/dtype.h"

namespace pycoll {

enum class ReduceOp : uint8_t { sum, avg, min, max, prod, band, bor, bxor, premul_sum };
inline constexpr int kReduceOps = 9;

constexpr std::string_view name_of(ReduceOp op) {
  constexpr std::string_view names[kReduceOps] = {"sum", "avg", "min", "max", "prod", "and", "or", "xor", "premul_sum"};
  return names[size_t(op)];
}

// sum and prod of bool are "any" and "all"; avg of integers truncates toward zero.
constexpr bool is_defined(ReduceOp op, DType t) {
  switch (op) {
    case ReduceOp::sum:
    case ReduceOp::prod: return true;
    case ReduceOp::avg: return t != DType::boolean;
    case ReduceOp::min:
    case ReduceOp::max: return !is_complex(t);
    case ReduceOp::band:
    case ReduceOp::bor:
    case ReduceOp::bxor: return is_integer(t) || t == DType::boolean;
    case ReduceOp::premul_sum: return is_floating(t);
  }
  return false;
}

}  // namespace pycoll
