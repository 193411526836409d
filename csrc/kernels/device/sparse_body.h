// Sparse payloads on a device: entries to bytes and back, as codec/sparse.h lays them out, values in f32, f16 or bf16.
#pragma once
#include "core/dtype.h"
#include "kernels/device/pack.h"
#include "kernels/element.h"
#include "kernels/topk.h"

namespace pycoll::kernels::device {
namespace {

inline constexpr uint32_t kLogSparse = 16;  // of the elements of a block of the payload

// Blocks of an array; bytes of the numbers of their entries, padding included: where the values begin.
PYCOLL_ELEMENT uint64_t blocks_of(uint64_t count) {
  return (count + (1u << kLogSparse) - 1) >> kLogSparse;
}
PYCOLL_ELEMENT uint64_t blocks_bytes(uint64_t count) {
  return (blocks_of(count) * sizeof(uint32_t) + 15) / 16 * 16;
}

struct SparsePayload {
  std::byte* data;
  uint64_t count;  // elements of the array
  uint32_t entries;
  DType format;

  PYCOLL_DEVICE uint32_t* in_block() const { return reinterpret_cast<uint32_t*>(data); }
  PYCOLL_DEVICE uint16_t* offsets() const { return reinterpret_cast<uint16_t*>(data + offsets_at()); }
  PYCOLL_DEVICE std::byte* value(uint64_t i) const { return data + values_at() + i * width(); }
  PYCOLL_DEVICE uint64_t words() const { return values_at() / sizeof(uint32_t); }

  PYCOLL_DEVICE void store(uint64_t i, float x) const {
    if (format == DType::f32) {
      *reinterpret_cast<float*>(value(i)) = x;
    } else {
      const uint32_t half = format == DType::f16 ? narrow_f16(x) : narrow_bf16(x);
      *reinterpret_cast<uint16_t*>(value(i)) = uint16_t(half);
    }
  }
  PYCOLL_DEVICE float load(uint64_t i) const {
    if (format == DType::f32) return *reinterpret_cast<const float*>(value(i));
    const uint32_t half = *reinterpret_cast<const uint16_t*>(value(i));
    return format == DType::f16 ? widen_f16<float>(half) : widen_bf16<float>(half);
  }

 private:
  PYCOLL_DEVICE uint32_t width() const { return format == DType::f32 ? 4 : 2; }
  PYCOLL_DEVICE uint64_t values_at() const { return blocks_bytes(count); }
  PYCOLL_DEVICE uint64_t offsets_at() const { return values_at() + uint64_t(entries) * width(); }
};

// Writes the payload of entries in ascending order. What halves do not carry of them goes to residual, if there is one.
struct PackEntries {
  Entries from;
  float* residual;
  SparsePayload to;

  template <class C>
  PYCOLL_DEVICE void operator()(C& on) const {
    const uint64_t stride = uint64_t(on.blocks()) * kThreads, self = uint64_t(on.block()) * kThreads + on.thread();
    for (uint64_t i = self; i < to.entries; i += stride) {
      const float x = from.value[i];
      to.store(i, x);
      to.offsets()[i] = uint16_t(from.index[i]);
      if (!residual || to.format == DType::f32) continue;
      const float lost = x - to.load(i);
      residual[from.index[i]] += lost - lost == 0 ? lost : 0;
    }
    for (uint64_t b = self; b < to.words(); b += stride)
      to.in_block()[b] = b < blocks_of(to.count) ? first_from((b + 1) << kLogSparse) - first_from(b << kLogSparse) : 0;
  }

 private:
  // The first entry whose index is not below.
  PYCOLL_DEVICE uint32_t first_from(uint64_t index) const {
    uint32_t begin = 0, end = to.entries;
    while (begin < end) {
      const uint32_t middle = begin + (end - begin) / 2;
      if (from.index[middle] < index) {
        begin = middle + 1;
      } else {
        end = middle;
      }
    }
    return begin;
  }
};

// out[i] = or += what the payload says; a block of threads for each of the payload's. Whatever the payload says,
// nothing outside of it and of out is touched.
struct Unpack {
  SparsePayload from;
  float* out;
  bool add;

  template <class C>
  PYCOLL_DEVICE void operator()(C& on) const {
    WarpTotals& totals = on.template shared<WarpTotals>();
    uint32_t before = 0;
    for (uint32_t b = on.thread(); b < on.block(); b += kThreads) before += from.in_block()[b];
    before = on.sum(before);
    if (lane(on) == 0) totals.of[warp(on)] = before;
    on.sync();
    uint64_t begin = 0;
    for (uint32_t w = 0; w < kWarps; ++w) begin += totals.of[w];
    const uint64_t last = begin + from.in_block()[on.block()], end = last < from.entries ? last : from.entries;
    for (uint64_t i = begin + on.thread(); i < end; i += kThreads) {
      const uint64_t at = (uint64_t(on.block()) << kLogSparse) + from.offsets()[i];
      if (at >= from.count) continue;
      const float x = from.load(i);
      out[at] = add ? canonical(out[at] + x) : x;
    }
  }
};

}  // namespace
}  // namespace pycoll::kernels::device
