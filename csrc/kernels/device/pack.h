// Four neighbouring elements, as one thread loads and stores them.
#pragma once
#include <cstddef>
#include <cstdint>

#include "kernels/device/context.h"

namespace pycoll::kernels::device {

inline constexpr uint32_t kPack = 4;
inline constexpr uint32_t kRows = 4;               // packs that a thread holds
inline constexpr uint32_t kRow = kWarp * kPack;    // elements of a warp, side by side
inline constexpr uint32_t kSpan = kRows * kRow;    // elements of a warp
inline constexpr uint32_t kTile = kWarps * kSpan;  // elements of a block: 4096

template <class T>
struct alignas(kPack * sizeof(T)) Pack {
  T lane[kPack];
};

// Memory that is read and written in packs where it is aligned for that.
template <class T>
struct Elements {
  T* data = nullptr;
  uint64_t count = 0;

  PYCOLL_DEVICE bool whole(uint64_t i) const {
    return i + kPack <= count && reinterpret_cast<uintptr_t>(data) % sizeof(Pack<T>) == 0;
  }
  // Elements i to i + 3, i a multiple of 4; 0 behind the end.
  PYCOLL_DEVICE void load(uint64_t i, T (&x)[kPack]) const {
    if (whole(i)) {
      const Pack<T> pack = *reinterpret_cast<const Pack<T>*>(data + i);
      PYCOLL_UNROLL
      for (uint32_t c = 0; c < kPack; ++c) x[c] = pack.lane[c];
    } else {
      PYCOLL_UNROLL
      for (uint32_t c = 0; c < kPack; ++c) x[c] = i + c < count ? data[i + c] : T{};
    }
  }
  PYCOLL_DEVICE void store(uint64_t i, const T (&x)[kPack]) const {
    if (whole(i)) {
      Pack<T> pack;
      PYCOLL_UNROLL
      for (uint32_t c = 0; c < kPack; ++c) pack.lane[c] = x[c];
      *reinterpret_cast<Pack<T>*>(data + i) = pack;
    } else {
      PYCOLL_UNROLL
      for (uint32_t c = 0; c < kPack; ++c)
        if (i + c < count) data[i + c] = x[c];
    }
  }
};

using Floats = Elements<float>;

// Where this thread's first pack is; row r is kRow elements further each. A warp's elements are contiguous.
template <class C>
PYCOLL_DEVICE uint64_t first_element(C& on) {
  return uint64_t(on.block()) * kTile + warp(on) * kSpan + lane(on) * kPack;
}

}  // namespace pycoll::kernels::device
