#include "kernels/simd.h"

#include <algorithm>
#include <cstdlib>

#include "core/error.h"

namespace pycoll::kernels {
namespace {

constexpr std::array<std::string_view, 3> kNames = {"scalar", "avx2", "avx512"};

// What the processor can run.
Simd highest() {
#if defined(__x86_64__)
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("f16c")) return Simd::scalar;
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                 __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")
             ? Simd::avx512
             : Simd::avx2;
#else
  return Simd::scalar;
#endif
}

Simd named(std::string_view name, const char* who) {
  for (size_t level = 0; level < kNames.size(); ++level)
    if (kNames[level] == name) return Simd(level);
  throw InvalidArgument(concat(who, ": wanted scalar, avx2 or avx512, got '", name, "'"));
}

}  // namespace

Simd find_simd() {
  const char* ceiling = std::getenv("PYCOLL_SIMD");
  const Simd level = ceiling && *ceiling ? std::min(highest(), named(ceiling, "PYCOLL_SIMD")) : highest();
  simd_in_use.store(level, std::memory_order_relaxed);
  return level;
}

std::string_view simd() {
  return kNames[size_t(simd_level())];
}

void select_simd(std::string_view name) {
  const Simd level = named(name, "select_simd");
  PYCOLL_CHECK(level <= highest(), "select_simd: this processor has no ", name);
  simd_in_use.store(level, std::memory_order_relaxed);
}

}  // namespace pycoll::kernels
