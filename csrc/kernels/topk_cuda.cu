// The sequence and its bodies are device/select.h's, which the tests run on the CPU. Compiled with -fmad=false.
//
// Not yet run on a GPU: compiled only. Its speed is unmeasured.
#include <cuda_runtime_api.h>

#include <algorithm>

#include "core/error.h"
#include "kernels/device/cuda_context.h"
#include "kernels/device/select.h"
#include "kernels/topk_cuda.h"

namespace pycoll::kernels::cuda {

void forget_topk(std::byte* kept, Stream stream) {
  device::Machine(stream).zero(kept, kTopkKeptBytes);
}

void select_topk(const Selection& what, std::byte* kept, Entries out, Stream stream) {
  static_assert(kTopkKeptBytes == sizeof(device::TopkKept));
  PYCOLL_CHECK(what.count < size_t(1) << 31, "cuda: top-k of ", what.count, " elements, wanted fewer than 2^31");
  const size_t k = std::min(what.k, what.count);
  const size_t selecting = round_up(device::TopkLayout(what.count, k).bytes, 16);
  const Temporary scratch(selecting + sizeof(uint32_t), stream);
  device::Machine machine(stream);
  device::select(machine,
                 {.in = {const_cast<float*>(what.in), what.count},
                  .residual = what.residual,
                  .k = k,
                  .kept = reinterpret_cast<device::TopkKept*>(kept),
                  .out = out,
                  .entries = reinterpret_cast<uint32_t*>(scratch.data() + selecting)},
                 scratch.data());
}

}  // namespace pycoll::kernels::cuda
