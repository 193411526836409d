// Philox4x32-10, the counter-based random numbers of J. Salmon, M. Moraes, R. Dror, D. Shaw, "Parallel Random Numbers:
// As Easy as 1, 2, 3", SC 2011.
//
// Element i of an array has word i mod 4 of the block with counter (low of i / 4, high of i / 4, low of step, stream)
// and key (low of seed, high of seed). The step's upper half is not used.
#pragma once
#include <cstdint>

#ifdef __CUDACC__
#define PYCOLL_PHILOX __host__ __device__ inline
#else
#define PYCOLL_PHILOX inline
#endif

namespace pycoll::kernels {
namespace {

inline constexpr uint32_t kPhiloxFactor[2] = {0xd2511f53, 0xcd9e8d57}, kPhiloxWeyl[2] = {0x9e3779b9, 0xbb67ae85};

struct PhiloxBlock {
  uint32_t word[4];
};

PYCOLL_PHILOX PhiloxBlock philox(PhiloxBlock counter, uint64_t key) {
  constexpr uint32_t weyl0 = kPhiloxWeyl[0], weyl1 = kPhiloxWeyl[1];  // nvcc reads no array of the host's
  constexpr uint64_t factor0 = kPhiloxFactor[0], factor1 = kPhiloxFactor[1];
  uint32_t k0 = uint32_t(key), k1 = uint32_t(key >> 32);
  auto& [c0, c1, c2, c3] = counter.word;
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = factor0 * c0, b = factor1 * c2;
    c0 = uint32_t(b >> 32) ^ c1 ^ k0;
    c1 = uint32_t(b);
    c2 = uint32_t(a >> 32) ^ c3 ^ k1;
    c3 = uint32_t(a);
    k0 += weyl0;
    k1 += weyl1;
  }
  return counter;
}

PYCOLL_PHILOX uint32_t philox_word(uint64_t seed, uint64_t step, uint32_t stream, uint64_t element) {
  const uint64_t at = element / 4;
  return philox({{uint32_t(at), uint32_t(at >> 32), uint32_t(step), stream}}, seed).word[element % 4];
}

}  // namespace
}  // namespace pycoll::kernels
