#include "kernels/shared_scale.h"

#include <algorithm>
#include <bit>
#include <limits>

namespace pycoll::kernels {
namespace {

// Calls body(begin, end, block index) for each block.
template <class Body>
void for_each_block(size_t count, uint32_t block, Body body) {
  for (size_t begin = 0, b = 0; begin < count; begin += block, ++b) body(begin, std::min(count, begin + block), b);
}

}  // namespace

void absmax_into(float* scales, const float* x, size_t count, uint32_t block) {
  for_each_block(count, block, [&](size_t begin, size_t end, size_t b) {
    uint32_t most = 0;  // magnitudes order as their bits do, NaN above all
    for (size_t i = begin; i < end; ++i) most = std::max(most, std::bit_cast<uint32_t>(x[i]) & 0x7fffffffu);
    scales[b] = most < 0x7f800000u ? std::bit_cast<float>(most) : std::numeric_limits<float>::quiet_NaN();
  });
}

template <class Code>
void snap(Code* codes, float* x, size_t count, uint32_t block, const float* scales, int largest) {
  constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23: what is added to it is rounded to an integer
  for_each_block(count, block, [&](size_t begin, size_t end, size_t b) {
    const float scale = scales[b], most = float(largest);
    if (!(scale > 0)) {
      std::fill(codes + begin, codes + end, Code(0));
      if (scale != 0) std::fill(x + begin, x + end, 0.0f);
      return;
    }
    for (size_t i = begin; i < end; ++i) {
      const float rounded = (x[i] / scale + kRounder) - kRounder;
      const float code = std::min(std::max(rounded, -most), most);
      codes[i] = Code(code);
      x[i] = x[i] - code * scale;
    }
  });
}

template <class Code>
void unsnap_into(float* out, const Code* codes, size_t count, uint32_t block, const float* scales, int divisor) {
  for_each_block(count, block, [&](size_t begin, size_t end, size_t b) {
    for (size_t i = begin; i < end; ++i) out[i] = float(codes[i]) * scales[b] / float(divisor);
  });
}

template void snap(int8_t*, float*, size_t, uint32_t, const float*, int);
template void snap(int16_t*, float*, size_t, uint32_t, const float*, int);
template void unsnap_into(float*, const int8_t*, size_t, uint32_t, const float*, int);
template void unsnap_into(float*, const int16_t*, size_t, uint32_t, const float*, int);

}  // namespace pycoll::kernels
