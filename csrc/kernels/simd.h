// Which instruction set the kernels use: picked at the first use, the best that this processor and this build have.
#pragma once
#include <array>
#include <atomic>
#include <cstdint>
#include <string_view>

namespace pycoll::kernels {

enum class Simd : uint8_t { scalar, avx2, avx512, unknown };

inline std::atomic<Simd> simd_in_use{Simd::unknown};
Simd find_simd();  // sets it, from the processor and the environment

// The level in use. PYCOLL_SIMD=scalar|avx2|avx512 lowers it; raises InvalidArgument if that is something else.
inline Simd simd_level() {
  const Simd level = simd_in_use.load(std::memory_order_relaxed);
  return level == Simd::unknown ? find_simd() : level;
}

// Its name. select_simd is for tests: it throws InvalidArgument if this processor cannot run what is named.
std::string_view simd();
void select_simd(std::string_view name);

// Of one kernel's tables (by level; null where not compiled in) the best one that is not above the level in use.
template <class Table>
const Table& pick(const std::array<const Table*, 3>& tables) {
  for (size_t level = size_t(simd_level()); level > 0; --level)
    if (tables[level]) return *tables[level];
  return *tables[0];
}

}  // namespace pycoll::kernels
