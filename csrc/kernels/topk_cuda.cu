// The sequence and its bodies are device/select.h's, which the tests run on the CPU. Compiled with -fmad=false.
//
// Not yet run on a GPU: compiled only. Its speed is unmeasured.
#include <cuda_runtime_api.h>

#include "core/error.h"
#include "kernels/device/cuda_context.h"
#include "kernels/device/select.h"
#include "kernels/topk_cuda.h"

namespace pycoll::kernels::cuda {

void forget_topk(std::byte* kept, Stream stream) {
  device::Machine(stream).zero(kept, kTopkKeptBytes);
}

size_t topk_scratch_bytes(size_t count, size_t k) {
  return device::TopkLayout(count, k < count ? k : count).bytes;
}

void select_topk(const float* in, float* residual, size_t count, size_t k, std::byte* kept, Entries out,
                 std::byte* scratch, Stream stream) {
  static_assert(kTopkKeptBytes == sizeof(device::TopkKept));
  PYCOLL_CHECK(count < size_t(1) << 31, "cuda: top-k of ", count, " elements, wanted fewer than 2^31");
  device::Machine machine(stream);
  device::select_exactly(machine, {const_cast<float*>(in), count}, residual, k,
                         reinterpret_cast<device::TopkKept*>(kept), out, scratch);
}

}  // namespace pycoll::kernels::cuda
