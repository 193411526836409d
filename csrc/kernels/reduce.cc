// Picks a body once, at the first use, and hands every call to it.
#include "kernels/reduce.h"

#include <array>
#include <atomic>
#include <cassert>
#include <cstdlib>

#include "core/error.h"
#include "kernels/kernel_of.h"
#include "kernels/reduce_table.h"

namespace pycoll::kernels {
namespace {

#if defined(__x86_64__)
bool runs_avx2() {
  return __builtin_cpu_supports("avx2");
}
bool runs_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}
#else
bool runs_avx2() {
  return false;
}
bool runs_avx512() {
  return false;
}
#endif

struct Level {
  std::string_view name;
  const Table* table;  // null if not compiled in or not for this processor
};

// Ascending.
const std::array<Level, 3>& levels() {
  static const std::array<Level, 3> all = {Level{"scalar", scalar_table()},
                                           Level{"avx2", runs_avx2() ? avx2_table() : nullptr},
                                           Level{"avx512", runs_avx512() ? avx512_table() : nullptr}};
  return all;
}

// The best level that can run, not above the one named.
const Table* best(std::string_view ceiling) {
  const Table* table = nullptr;
  for (const Level& level : levels()) {
    if (level.table) table = level.table;
    if (level.name == ceiling) return table;
  }
  throw InvalidArgument(concat("PYCOLL_SIMD: wanted scalar, avx2 or avx512, got '", ceiling, "'"));
}

std::atomic<const Table*>& active() {
  static std::atomic<const Table*> table = [] {
    const char* ceiling = std::getenv("PYCOLL_SIMD");
    return best(ceiling && *ceiling ? ceiling : "avx512");
  }();
  return table;
}

const Table& table() {
  return *active().load(std::memory_order_relaxed);
}

}  // namespace

std::string_view simd() {
  return table().name;
}

void select_simd(std::string_view name) {
  for (const Level& level : levels()) {
    if (level.name != name) continue;
    PYCOLL_CHECK(level.table, "select_simd: this processor, or this build, has no ", name);
    active().store(level.table, std::memory_order_relaxed);
    return;
  }
  throw InvalidArgument(concat("select_simd: wanted scalar, avx2 or avx512, got '", name, "'"));
}

void reduce_all(Buffer dst, std::span<const std::byte* const> srcs, ReduceOp op, int divisor) {
  assert(is_defined(op, dst.dtype) && !srcs.empty() && divisor >= 1);
  const Kernel kernel = kernel_of(op, dst.dtype);
  table().reduce[int(kernel.op)][int(kernel.dtype)](
      {dst.data, srcs.data(), srcs.size(), dst.count * kernel.parts, divisor});
}

void reduce_into(Buffer dst, ConstBuffer a, ConstBuffer b, ReduceOp op) {
  assert(a.count == dst.count && b.count == dst.count && a.dtype == dst.dtype && b.dtype == dst.dtype);
  const std::byte* const srcs[] = {a.data, b.data};
  reduce_all(dst, srcs, op);
}

void divide(Buffer x, int divisor) {
  assert(x.dtype != DType::boolean);
  if (divisor == 1) return;
  const std::byte* const srcs[] = {x.data};
  reduce_all(x, srcs, ReduceOp::sum, divisor);
}

void scale_into(Buffer dst, ConstBuffer src, double factor) {
  assert(is_floating(dst.dtype) && dst.dtype == src.dtype && dst.count == src.count);
  const Kernel kernel = kernel_of(ReduceOp::sum, dst.dtype);
  table().scale[int(kernel.dtype)](dst.data, src.data, dst.count * kernel.parts, factor);
}

void widen_into(float* dst, ConstBuffer src) {
  assert(is_half(src.dtype));
  table().widen[int(src.dtype)](reinterpret_cast<std::byte*>(dst), src.data, src.count);
}

void narrow_into(Buffer dst, const float* src) {
  assert(is_half(dst.dtype));
  table().narrow[int(dst.dtype)](dst.data, reinterpret_cast<const std::byte*>(src), dst.count);
}

}  // namespace pycoll::kernels
