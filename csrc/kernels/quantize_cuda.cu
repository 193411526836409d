// Bodies are device/quantize_body.h's and device/cast_body.h's, which the tests run on the CPU. Compiled with
// -fmad=false, and with CUDA's defaults -ftz=false and -prec-div=true.
//
// Not yet run on a GPU: compiled only. Its speed is unmeasured.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <bit>

#include "core/error.h"
#include "kernels/device/cast_body.h"
#include "kernels/device/cuda_context.h"
#include "kernels/device/quantize_body.h"
#include "kernels/quantize_cuda.h"

namespace pycoll::kernels::cuda {
namespace {

using device::Machine;

void want_aligned(const void* payload) {
  PYCOLL_CHECK(reinterpret_cast<uintptr_t>(payload) % 4 == 0, "cuda: got a payload that is not aligned to 4 bytes");
}

device::Payload payload_at(const std::byte* data, uint64_t count, uint32_t block) {
  PYCOLL_CHECK(std::has_single_bit(block) && block >= kLeastBlock && block <= kMostBlock, "cuda: block is ", block,
               ", wanted a power of two from ", kLeastBlock, " to ", kMostBlock);
  want_aligned(data);
  return {const_cast<std::byte*>(data), count, uint32_t(std::countr_zero(block))};
}

device::Array array_of(const float* in, float* residual, size_t count) {
  return {{const_cast<float*>(in), count}, {residual, residual ? count : 0}};
}

template <class Body>
void run(const Body& body, Stream stream) {
  Machine(stream).run(body.blocks(), body);
}

template <class Sink>
void dequantize(float* out, const Quantized& from, Stream stream) {
  const auto payload = payload_at(from.payload, from.count, from.block);
  device::with_grid(
      from.grid, [&](auto constant) { run(device::Dequantize<constant(), Sink>{payload, {out, from.count}}, stream); });
}

template <ValueFormat format>
device::Numbers<format> numbers_of(const Plain& plain) {
  want_aligned(plain.payload);
  return {reinterpret_cast<typename device::Written<format>::Stored*>(plain.payload), plain.count};
}

template <class Sink>
void widen(float* out, const Plain& from, Stream stream) {
  device::with_cast(from.format, [&](auto constant) {
    run(device::Widen<constant(), Sink>{numbers_of<constant()>(from), {out, from.count}}, stream);
  });
}

}  // namespace

void quantize(const Quantizer& how, const float* in, float* residual, size_t count, std::byte* payload, Stream stream) {
  const auto to = payload_at(payload, count, how.block);
  device::with_grid(how.grid, [&](auto constant) {
    run(device::Quantize<constant(), device::Array>{how, array_of(in, residual, count), to}, stream);
  });
}

void dequantize(Store store, float* out, const Quantized& from, Stream stream) {
  store == Store::into ? dequantize<device::Into>(out, from, stream) : dequantize<device::Add>(out, from, stream);
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
    run(device::Quantize<constant(), Peers>{how, from, to}, stream);
  });
}

void narrow(const Plain& to, const float* in, float* residual, Stream stream) {
  device::with_cast(to.format, [&](auto constant) {
    run(device::Narrow<constant(), device::Array>{array_of(in, residual, to.count), numbers_of<constant()>(to)},
        stream);
  });
}

void widen(Store store, float* out, const Plain& from, Stream stream) {
  store == Store::into ? widen<device::Into>(out, from, stream) : widen<device::Add>(out, from, stream);
}

}  // namespace pycoll::kernels::cuda
