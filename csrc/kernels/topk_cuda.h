// Exact top-k on a CUDA device: the contract of select_topk in topk.h, to the bit; and sparse payloads of its entries.
//
// Pointers are memory of the current device. Calls return once they are enqueued on the stream; none waits for the
// device, the fix-up pass included: whether it is needed is decided there. Counts are below 2^31. They raise
// DeviceError and InvalidArgument.
#pragma once
#include <cstdint>

#include "core/dtype.h"
#include "kernels/device_cuda.h"
#include "kernels/topk.h"

namespace pycoll::kernels::cuda {

// What one selection leaves to the next of the same array; zero before the first. It never changes the result.
inline constexpr size_t kTopkKeptBytes = 8;
void forget_topk(std::byte* kept, Stream stream);
// Temporary memory of a selection, which need not be kept.
size_t topk_scratch_bytes(size_t count, size_t k);

// Exactly min(k, count) entries of in, or of in + residual where there is one; then residual = in + residual, and 0 for
// what was selected.
void select_topk(const float* in, float* residual, size_t count, size_t k, std::byte* kept, Entries out,
                 std::byte* scratch, Stream stream);

// Entries of `count` elements as codec/sparse.h writes them; never as an identity. `format` of the values is f32, f16
// or bf16; the payload is aligned to 4 bytes.
struct Sparse {
  std::byte* payload;
  size_t count, entries;
  DType format;
};
size_t sparse_bytes(const Sparse& sparse);
// Of halves, what they do not carry is added to `residual` where there is one.
void pack(const Sparse& to, Entries from, float* residual, Stream stream);
void unpack_into(float* out, const Sparse& from, Stream stream);
void unpack_add(float* acc, const Sparse& from, Stream stream);

}  // namespace pycoll::kernels::cuda
