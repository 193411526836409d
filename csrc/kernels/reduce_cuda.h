// The reduce kernels on a CUDA device: the contract of reduce.h, to the bit, enqueued on a stream. No CUDA types here.
//
// dst and sources are memory of the current device, aligned to their element's components. Calls return once enqueued.
// Raise DeviceError, naming what is missing where there is no driver or device, and InvalidArgument.
#pragma once
#include <cstddef>
#include <span>

#include "core/buffer.h"
#include "core/op.h"
#include "kernels/device_cuda.h"

namespace pycoll::kernels::cuda {

inline constexpr size_t kMostSources = 64;

// dst[i] = a[i] op b[i]. Buffers agree in count and dtype.
void reduce_into(Buffer dst, ConstBuffer a, ConstBuffer b, ReduceOp op, Stream stream);

// dst[i] = (srcs[0][i] op srcs[1][i] op ...) / divisor; 1 to kMostSources sources of dst.count elements.
void reduce_all(Buffer dst, std::span<const std::byte* const> srcs, ReduceOp op, int divisor, Stream stream);

}  // namespace pycoll::kernels::cuda
