// Exact top-k on a CUDA device, step after step of one array: the contract of select_topk in topk.h, to the bit.
//
// Pointers are memory of the current device. Calls return once they are enqueued on the stream; none waits for the
// device, the fix-up pass included: whether it is needed is decided there. Counts are below 2^31. They raise
// DeviceError and InvalidArgument.
#pragma once
#include "kernels/device_cuda.h"
#include "kernels/topk.h"

namespace pycoll::kernels::cuda {

// What one selection leaves to the next of the same array; zero before the first. It never changes the result.
inline constexpr size_t kTopkKeptBytes = 8;
void forget_topk(std::byte* kept, Stream stream);

// Exactly min(k, count) entries of in, or of in + residual where there is one; then residual = in + residual, and 0 for
// what was selected.
struct Selection {
  const float* in;
  float* residual;  // or null
  size_t count, k;
};
void select_topk(const Selection& what, std::byte* kept, Entries out, Stream stream);

}  // namespace pycoll::kernels::cuda
