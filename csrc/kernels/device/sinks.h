// What becomes of decoded numbers: they are written, or added to what is there.
#pragma once
#include "kernels/device/pack.h"
#include "kernels/element.h"

namespace pycoll::kernels::device {
namespace {

struct Into {
  PYCOLL_DEVICE static void take(const Floats& out, uint64_t i, const float (&x)[kPack]) { out.store(i, x); }
  PYCOLL_DEVICE static void take(float& out, float x) { out = x; }
};

struct Add {
  PYCOLL_DEVICE static void take(const Floats& out, uint64_t i, const float (&x)[kPack]) {
    float sum[kPack];
    out.load(i, sum);
    PYCOLL_UNROLL
    for (uint32_t c = 0; c < kPack; ++c) take(sum[c], x[c]);
    out.store(i, sum);
  }
  PYCOLL_DEVICE static void take(float& out, float x) { out = canonical(out + x); }
};

}  // namespace
}  // namespace pycoll::kernels::device
