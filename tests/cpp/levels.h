// The instruction sets that this processor and this build have.
#pragma once
#include <string_view>
#include <vector>

#include "core/error.h"
#include "kernels/simd.h"

inline std::vector<std::string_view> available() {
  std::vector<std::string_view> names;
  for (const std::string_view name : {"scalar", "avx2", "avx512"}) {
    try {
      pycoll::kernels::select_simd(name);
      names.push_back(name);
    } catch (const pycoll::InvalidArgument&) {
    }
  }
  return names;
}
