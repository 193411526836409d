// The k elements of largest magnitude, in ascending order of their indices.
//
// Magnitude goes by the bits of |x|: NaN is above infinity is above all numbers; among equals the lower index wins.
// Counts are below 2^32. Identical results on every instruction set and on CUDA.
#pragma once
#include <cstddef>
#include <cstdint>

#include "core/scratch.h"

namespace pycoll::kernels {

enum class Choice { exact, near };  // select_topk or select_near

// Entries of a sparse array; room for as many as asked for.
struct Entries {
  uint32_t* index;
  float* value;
};

// What one selection leaves to the next of the same array: where its threshold was, or below that by little. The CPU
// only writes it: looking at a sample instead costs little and is never out of date.
struct TopkState {
  uint32_t threshold = 0;  // bits of a magnitude; 0: none yet
};

// Exactly min(k, count) entries of in, or of in + residual where there is one; then residual = in + residual (a NaN as
// 7fc00000), and 0 for what was selected. `state` makes it faster at most, and never changes the result. Returns the
// entries.
size_t select_topk(const float* in, float* residual, size_t count, size_t k, TopkState& state, Entries out,
                   Scratch& scratch);

// Nearly k entries: those whose magnitude reaches the threshold of TopkSample(count, 3/4 min(k, count), rounded up), if
// they are at least as many as that and at most min(k, count); else, and where that threshold is 0, those that
// select_topk selects. Depends on nothing but in and residual.
size_t select_near(const float* in, float* residual, size_t count, size_t k, TopkState& state, Entries out,
                   Scratch& scratch);

}  // namespace pycoll::kernels
