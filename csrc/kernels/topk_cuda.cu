// The sequence and its bodies are device/select.h's, which the tests run on the CPU. Compiled with -fmad=false.
//
// Not yet run on a GPU: compiled only. Its speed is unmeasured.
#include <cuda_runtime_api.h>

#include <algorithm>

#include "core/error.h"
#include "kernels/device/cuda_context.h"
#include "kernels/device/select.h"
#include "kernels/device/sparse_body.h"
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

size_t sparse_bytes(const Sparse& sparse) {
  const size_t width = sparse.format == DType::f32 ? 4 : 2;
  return device::blocks_bytes(sparse.count) + sparse.entries * (width + sizeof(uint16_t));
}

namespace {

device::SparsePayload body_of(const Sparse& sparse) {
  PYCOLL_CHECK(sparse.count < size_t(1) << 31 && sparse.entries <= sparse.count, "cuda: ", sparse.entries,
               " entries of ", sparse.count, " elements, wanted fewer than 2^31 and no more entries");
  PYCOLL_CHECK(reinterpret_cast<uintptr_t>(sparse.payload) % 4 == 0, "cuda: got a payload not aligned to 4 bytes");
  return {sparse.payload, sparse.count, uint32_t(sparse.entries), sparse.format};
}

}  // namespace

void pack(const Sparse& to, Entries from, float* residual, Stream stream) {
  device::Machine machine(stream);
  const uint64_t tiles = std::max<uint64_t>(to.entries, device::blocks_of(to.count) + 3) / device::kThreads + 1;
  machine.run(std::min<uint64_t>(machine.fill(), tiles), device::PackEntries{from, residual, body_of(to)});
}

void unpack_into(float* out, const Sparse& from, Stream stream) {
  device::Machine machine(stream);
  machine.zero(reinterpret_cast<std::byte*>(out), from.count * sizeof(float));
  machine.run(device::blocks_of(from.count), device::Unpack{body_of(from), out, false});
}

void unpack_add(float* acc, const Sparse& from, Stream stream) {
  device::Machine(stream).run(device::blocks_of(from.count), device::Unpack{body_of(from), acc, true});
}

}  // namespace pycoll::kernels::cuda
