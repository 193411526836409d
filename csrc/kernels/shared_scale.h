// Numbers on a grid that is given: integer multiples of a scale for each block. Plain loops, the same bits everywhere.
#pragma once
#include <cstddef>
#include <cstdint>

namespace pycoll::kernels {

// scales[b] = the largest |x| of block b of `block` elements; NaN if one of them is NaN or infinite.
void absmax_into(float* scales, const float* x, size_t count, uint32_t block);

// codes[i] = x[i] / scale rounded to the nearest even integer, at most `largest` in magnitude; x[i] = x[i] - code *
// scale. Where scale is 0, codes are 0 and x stays; where it is NaN, both become 0.
template <class Code>
void snap(Code* codes, float* x, size_t count, uint32_t block, const float* scales, int largest);

// out[i] = codes[i] * scale / divisor; NaN in blocks whose scale is NaN.
template <class Code>
void unsnap_into(float* out, const Code* codes, size_t count, uint32_t block, const float* scales, int divisor);

}  // namespace pycoll::kernels
