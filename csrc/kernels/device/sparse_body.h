// Sparse payloads on a device, as codec/sparse.h lays them out: entries to bytes and back.
#pragma once
#include "kernels/device/cast_body.h"
#include "kernels/device/quantize_body.h"
#include "kernels/topk.h"
#include "kernels/values.h"

namespace pycoll::kernels::device {
namespace {

// Entries of an array, in ascending order; only the device knows how many.
struct Chosen {
  Entries from;
  const uint32_t* entries;
  uint64_t dense_from;  // with so many, the payload is the array itself in f32, zeros between them
  float* residual;      // may be null; 0 at the entries

  PYCOLL_DEVICE bool dense() const { return *entries >= dense_from; }
};

// This thread's share of [0, count).
template <class C, class Body>
PYCOLL_DEVICE void share(C& on, uint64_t count, Body body) {
  const uint64_t stride = uint64_t(on.blocks()) * kThreads;
  for (uint64_t i = uint64_t(on.block()) * kThreads + on.thread(); i < count; i += stride) body(i);
}

// The values of a payload that is not dense. What they do not carry goes to the residual.
template <ValueFormat format>
struct PackValues {
  Chosen chosen;
  std::byte* to;

  template <class C>
  PYCOLL_DEVICE void operator()(C& on) const {
    if (chosen.dense()) return;
    const Values from{chosen.from, *chosen.entries, chosen.residual};
    if constexpr (format == ValueFormat::int8 || format == ValueFormat::int4) {
      constexpr Grid grid = format == ValueFormat::int8 ? Grid::int8 : Grid::int4;
      quantize_tile<grid>(on, Quantizer{}, from, Payload{to, from.entries, log_values_block(format)});
    } else {
      using Stored = typename Written<format>::Stored;
      narrow_tile<format>(on, from, {reinterpret_cast<Stored*>(to), from.entries});
    }
  }
};

// All but the values; of a dense payload, which is zero before, everything.
struct PackPlaces {
  Chosen chosen;
  uint64_t count;  // of the array
  ValueFormat format;
  std::byte* payload;

  template <class C>
  PYCOLL_DEVICE void operator()(C& on) const {
    const Entries from = chosen.from;
    const SparseLayout layout(count, *chosen.entries, format);
    if (chosen.dense()) {
      auto* const array = reinterpret_cast<float*>(payload);
      return share(on, layout.entries, [&](uint64_t i) { array[from.index[i]] = from.value[i]; });
    }
    auto* const in_block = reinterpret_cast<uint32_t*>(payload);
    auto* const offsets = reinterpret_cast<uint16_t*>(payload + layout.offsets);
    const uint64_t end = layout.values + values_bytes(format, layout.entries);
    if (on.block() == 0 && on.thread() == 0 && end < layout.offsets) payload[end] = std::byte{0};
    share(on, layout.entries, [&](uint64_t i) { offsets[i] = uint16_t(from.index[i]); });
    share(on, layout.values / sizeof(uint32_t), [&](uint64_t b) {
      constexpr uint32_t log_block = SparseLayout::kLogBlock;
      in_block[b] = b < layout.blocks ? first_from((b + 1) << log_block) - first_from(b << log_block) : 0;
    });
  }

 private:
  // The first entry whose index is not below.
  PYCOLL_DEVICE uint32_t first_from(uint64_t index) const {
    uint32_t begin = 0, end = *chosen.entries;
    while (begin < end) {
      const uint32_t middle = begin + (end - begin) / 2;
      if (chosen.from.index[middle] < index) {
        begin = middle + 1;
      } else {
        end = middle;
      }
    }
    return begin;
  }
};

// --- Back. Whatever a payload says, nothing outside of it and of the array is touched.

// The values of a payload, one at a time.
struct Coded {
  std::byte* data;
  uint64_t entries;
  ValueFormat format;

  PYCOLL_DEVICE float operator[](uint64_t i) const {
    switch (format) {
      case ValueFormat::f32: return reinterpret_cast<const float*>(data)[i];
      case ValueFormat::f16: return Written<ValueFormat::f16>::widen(reinterpret_cast<const uint16_t*>(data)[i]);
      case ValueFormat::bf16: return Written<ValueFormat::bf16>::widen(reinterpret_cast<const uint16_t*>(data)[i]);
      case ValueFormat::int8: return canonical(decode_one<Grid::int8>(payload(), i));
      default: return canonical(decode_one<Grid::int4>(payload(), i));
    }
  }

 private:
  PYCOLL_DEVICE Payload payload() const { return {data, entries, log_values_block(format)}; }
};

struct SparsePayload {
  std::byte* data;
  SparseLayout layout;
  ValueFormat format;

  PYCOLL_DEVICE const uint32_t* in_block() const { return reinterpret_cast<const uint32_t*>(data); }
  PYCOLL_DEVICE const uint16_t* offsets() const { return reinterpret_cast<const uint16_t*>(data + layout.offsets); }
  PYCOLL_DEVICE Coded values() const { return {data + layout.values, layout.entries, format}; }
};

// The entries of block on.block() of the payload, as it says.
struct Span {
  uint64_t begin, end;
};
template <class C>
PYCOLL_DEVICE Span entries_of_block(C& on, const SparsePayload& payload) {
  WarpTotals& totals = on.template shared<WarpTotals>();
  uint32_t before = 0;
  for (uint32_t b = on.thread(); b < on.block(); b += kThreads) before += payload.in_block()[b];
  before = on.sum(before);
  if (lane(on) == 0) totals.of[warp(on)] = before;
  on.sync();
  uint64_t begin = 0;
  for (uint32_t w = 0; w < kWarps; ++w) begin += totals.of[w];
  return {begin, begin + payload.in_block()[on.block()]};
}

// A block of threads for each of the payload's.
template <class Sink>
struct Unpack {
  SparsePayload from;
  float* out;

  template <class C>
  PYCOLL_DEVICE void operator()(C& on) const {
    const Span span = entries_of_block(on, from);
    const uint64_t end = span.end < from.layout.entries ? span.end : from.layout.entries;
    const Coded values = from.values();
    for (uint64_t i = span.begin + on.thread(); i < end; i += kThreads) {
      const uint64_t at = (uint64_t(on.block()) << SparseLayout::kLogBlock) + from.offsets()[i];
      if (at < from.layout.count) Sink::take(out[at], values[i]);
    }
  }
};

// body(constant), a std::integral_constant that is `format`, one of sparse values.
template <class Body>
void with_values(ValueFormat format, Body body) {
  switch (format) {
    case ValueFormat::int8: return body(std::integral_constant<ValueFormat, ValueFormat::int8>());
    case ValueFormat::int4: return body(std::integral_constant<ValueFormat, ValueFormat::int4>());
    default: return with_cast(format, body);
  }
}

}  // namespace
}  // namespace pycoll::kernels::device
