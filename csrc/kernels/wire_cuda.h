// Wires on a CUDA device: headers, what decoders check, and sparse payloads, whose number of entries only the device
// knows. docs/wire.md has the bytes.
//
// Pointers are memory of the current device, wires aligned to 4 bytes. Calls return once they are enqueued on the
// stream, but for check(), which waits for what it finds. They raise DeviceError and InvalidArgument.
#pragma once
#include <cstdint>

#include "kernels/header.h"
#include "kernels/quantize_cuda.h"
#include "kernels/topk.h"

namespace pycoll::kernels::cuda {

// Writes a header in front of the payload behind it, checksum filled in.
void seal(std::byte* wire, const Header& header, Stream stream);

// What is encoded: in, or in + residual where there is one, which becomes what the payload does not carry.
struct SparseWire {
  const float* in;
  float* residual;
  size_t count;          // below 2^31
  size_t entries;        // at most
  ValueFormat format;    // of the values: f32, f16, bf16, int8, int4
  Header sparse, dense;  // of a sparse payload, and of an identity where that is shorter; the rest is filled in
  std::byte* wire;
};
void encode_topk(const SparseWire& to, Choice choice, Stream stream);
void encode_random(const SparseWire& to, uint64_t seed, uint64_t step, Stream stream);

// A payload of the codecs topk or randomk.
struct SparseFrom {
  const std::byte* payload;
  size_t count, entries;
  ValueFormat format;
};
void decode_topk(Store store, float* out, const SparseFrom& from, Stream stream);
void decode_random(Store store, float* out, const SparseFrom& from, Stream stream);

// What is found in a payload: its checksum, and how many scales are none or entries are out of place.
struct Findings {
  uint32_t checksum, faults;
};
Findings check(const std::byte* payload, uint64_t bytes, uint64_t scales, Stream stream);
Findings check_topk(const SparseFrom& from, Stream stream);

}  // namespace pycoll::kernels::cuda
