// Bodies are device/quantize_body.h's and device/checksum_body.h's, which the tests run on the CPU. Compiled with
// -fmad=false, and with CUDA's defaults -ftz=false and -prec-div=true.
//
// Not yet run on a GPU: compiled only. Its speed is unmeasured.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <bit>

#include "core/error.h"
#include "kernels/device/checksum_body.h"
#include "kernels/device/cuda_context.h"
#include "kernels/device/quantize_body.h"
#include "kernels/quantize_cuda.h"

namespace pycoll::kernels::cuda {
namespace {

using device::Floats;
using device::Machine;

device::Payload payload_at(const std::byte* data, uint64_t count, uint32_t block) {
  PYCOLL_CHECK(std::has_single_bit(block) && block >= kLeastBlock && block <= kMostBlock, "cuda: block is ", block,
               ", wanted a power of two from ", kLeastBlock, " to ", kMostBlock);
  PYCOLL_CHECK(reinterpret_cast<uintptr_t>(data) % 4 == 0, "cuda: got a payload that is not aligned to 4 bytes");
  return {const_cast<std::byte*>(data), count, uint32_t(std::countr_zero(block))};
}

void dequantize(Grid grid, const device::Payload& from, Floats out, bool add, Stream stream) {
  device::with_grid(grid, [&](auto constant) {
    const device::Dequantize<constant()> body{from, out, add};
    Machine(stream).run(body.blocks(), body);
  });
}

}  // namespace

void quantize(const Quantizer& how, const float* in, float* residual, size_t count, std::byte* payload, Stream stream) {
  const device::Array from{{const_cast<float*>(in), count}, {residual, residual ? count : 0}};
  const auto to = payload_at(payload, count, how.block);
  device::with_grid(how.grid, [&](auto constant) {
    const device::Quantize<constant(), device::Array> body{how, from, to};
    Machine(stream).run(body.blocks(), body);
  });
}

void dequantize_into(Grid grid, uint32_t block, float* out, const std::byte* payload, size_t count, Stream stream) {
  dequantize(grid, payload_at(payload, count, block), {out, count}, false, stream);
}

void dequantize_add(Grid grid, uint32_t block, float* acc, const std::byte* payload, size_t count, Stream stream) {
  dequantize(grid, payload_at(payload, count, block), {acc, count}, true, stream);
}

void requantize(const Quantizer& how, std::span<const std::byte* const> payloads, size_t count, std::byte* payload,
                Stream stream) {
  static_assert(kMostPeers == device::kMostPeers);
  PYCOLL_CHECK(!payloads.empty() && payloads.size() <= kMostPeers, "cuda: got ", payloads.size(),
               " payloads to add, wanted 1 to ", kMostPeers);
  const auto to = payload_at(payload, count, how.block);
  for (const std::byte* const from : payloads) payload_at(from, count, how.block);
  device::with_grid(how.grid, [&](auto constant) {
    using Peers = device::Peers<constant()>;
    Peers from{.payload = {}, .peers = uint32_t(payloads.size()), .count = count, .log_block = to.log_block};
    std::copy(payloads.begin(), payloads.end(), from.payload);
    const device::Quantize<constant(), Peers> body{how, from, to};
    Machine(stream).run(body.blocks(), body);
  });
}

void seal(std::byte* wire, const uint32_t (&header)[8], size_t payload_bytes, Stream stream) {
  PYCOLL_CHECK(reinterpret_cast<uintptr_t>(wire) % 4 == 0, "cuda: got a wire that is not aligned to 4 bytes");
  Machine machine(stream);
  device::Seal body{.to = reinterpret_cast<uint32_t*>(wire), .bytes = payload_bytes, .header = {}};
  std::copy(std::begin(header), std::end(header), body.header.word);
  machine.zero(wire, sizeof(header));
  const uint64_t tiles = payload_bytes / (16 * device::kThreads) + 1;
  machine.run(std::min<uint64_t>(machine.fill(), tiles), body);
}

}  // namespace pycoll::kernels::cuda
