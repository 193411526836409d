// Sequences are device/sparse_wire.h's and device/check_body.h's, which the tests run on the CPU. Compiled with
// -fmad=false, and with CUDA's defaults -ftz=false and -prec-div=true.
//
// Not yet run on a GPU: compiled only. Its speed is unmeasured.
#include <cuda_runtime_api.h>

#include "core/error.h"
#include "kernels/device/check_body.h"
#include "kernels/device/cuda_context.h"
#include "kernels/device/sparse_wire.h"
#include "kernels/wire_cuda.h"

namespace pycoll::kernels::cuda {
namespace {

using device::Machine;

void want_aligned(const std::byte* wire) {
  PYCOLL_CHECK(reinterpret_cast<uintptr_t>(wire) % 4 == 0, "cuda: got a wire that is not aligned to 4 bytes");
}
void want_countable(size_t count, size_t entries) {
  PYCOLL_CHECK(count < size_t(1) << 31 && entries <= count, "cuda: ", entries, " entries of ", count,
               " elements, wanted fewer than 2^31 elements and no more entries");
}

device::Wire wire_of(const SparseWire& to) {
  want_aligned(to.wire);
  want_countable(to.count, to.entries);
  return {{const_cast<float*>(to.in), to.count}, to.residual, to.format, to.sparse, to.dense, to.wire};
}

device::SparsePayload payload_of(const SparseFrom& from) {
  want_aligned(from.payload);
  want_countable(from.count, from.entries);
  return {const_cast<std::byte*>(from.payload), SparseLayout(from.count, from.entries, from.format), from.format};
}

Findings find(const device::Checked& what, Stream stream) {
  want_aligned(what.payload);
  const Temporary memory(sizeof(device::Found), stream);
  auto* const found = reinterpret_cast<device::Found*>(memory.data());
  Machine machine(stream);
  device::check(machine, what, found);
  device::Found read_back;
  read(&read_back, found, sizeof(read_back), stream);
  return {read_back.sum + uint32_t(what.bytes), read_back.faults};
}

template <class Sink>
void decode_topk(float* out, const SparseFrom& from, Stream stream) {
  Machine machine(stream);
  device::decode_sparse<Sink>(machine, {out, from.count}, payload_of(from));
}

template <class Sink>
void decode_random(float* out, const SparseFrom& from, Stream stream) {
  want_aligned(from.payload);
  want_countable(from.count, from.entries);
  Machine machine(stream);
  device::decode_random(machine, device::Undraw<Sink>{from.payload, from.count, from.entries, from.format, out});
}

}  // namespace

void seal(std::byte* wire, const Header& header, Stream stream) {
  want_aligned(wire);
  Machine machine(stream);
  device::seal(machine, wire, header.bytes(), device::Known{header});
}

void encode_topk(const SparseWire& to, Choice choice, Stream stream) {
  const device::Wire wire = wire_of(to);
  const Temporary scratch(device::topk_wire_layout(to.count, to.entries).bytes, stream);
  Machine machine(stream);
  device::encode_topk(machine, wire, to.entries, choice, scratch.data());
}

void encode_random(const SparseWire& to, uint64_t seed, uint64_t step, Stream stream) {
  const device::Wire wire = wire_of(to);
  const Temporary scratch(device::WireLayout(0, to.entries).bytes, stream);
  Machine machine(stream);
  device::encode_random(machine, wire, {seed, step, to.count, to.entries}, scratch.data());
}

void decode_topk(Store store, float* out, const SparseFrom& from, Stream stream) {
  store == Store::into ? decode_topk<device::Into>(out, from, stream) : decode_topk<device::Add>(out, from, stream);
}

void decode_random(Store store, float* out, const SparseFrom& from, Stream stream) {
  store == Store::into ? decode_random<device::Into>(out, from, stream) : decode_random<device::Add>(out, from, stream);
}

Findings check(const std::byte* payload, uint64_t bytes, uint64_t scales, Stream stream) {
  return find({payload, bytes, scales, nullptr}, stream);
}

Findings check_topk(const SparseFrom& from, Stream stream) {
  const device::SparsePayload payload = payload_of(from);
  return find({from.payload, payload.layout.bytes, 0, &payload}, stream);
}

}  // namespace pycoll::kernels::cuda
