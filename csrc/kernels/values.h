// The formats that numbers of payloads are written in, and where the parts of a sparse payload begin: for the host, and
// for a device that alone knows how many entries there are.
#pragma once
#include <cstdint>

#ifdef __CUDACC__
#define PYCOLL_ANYWHERE __host__ __device__
#else
#define PYCOLL_ANYWHERE
#endif

namespace pycoll::kernels {

// Part of the wire format: append, never renumber.
enum class ValueFormat : uint8_t { f32, f16, bf16, int8, int4, e4m3, e5m2, bit };
inline constexpr int kValueFormats = 8;

PYCOLL_ANYWHERE constexpr uint64_t round_up(uint64_t bytes, uint64_t to) {
  return (bytes + to - 1) / to * to;
}

// Of a sparse payload's values in int8 or int4: log2 of how many share a scale.
PYCOLL_ANYWHERE constexpr uint32_t log_values_block(ValueFormat format) {
  return format == ValueFormat::int8 ? 8 : 7;
}

// Of a sparse payload's values, in one of the first five formats.
PYCOLL_ANYWHERE constexpr uint64_t values_bytes(ValueFormat format, uint64_t count) {
  const uint32_t log_block = log_values_block(format);
  const uint64_t scales = round_up(((count + (1u << log_block) - 1) >> log_block) * 4, 16);
  switch (format) {
    case ValueFormat::f32: return 4 * count;
    case ValueFormat::f16:
    case ValueFormat::bf16: return 2 * count;
    case ValueFormat::int8: return scales + count;
    default: return scales + (count + 1) / 2;
  }
}

// Of codec/sparse.h.
struct SparseLayout {
  static constexpr uint32_t kLogBlock = 16;  // elements whose entries are counted together
  static constexpr uint64_t kBlock = uint64_t(1) << kLogBlock;

  uint64_t count, entries, blocks, values, offsets, bytes;
  PYCOLL_ANYWHERE constexpr SparseLayout(uint64_t count, uint64_t entries, ValueFormat format)
      : count(count),
        entries(entries),
        blocks((count + kBlock - 1) >> kLogBlock),
        values(round_up(blocks * sizeof(uint32_t), 16)),
        offsets(values + round_up(values_bytes(format, entries), sizeof(uint16_t))),
        bytes(offsets + entries * sizeof(uint16_t)) {}
  PYCOLL_ANYWHERE constexpr uint64_t dense_bytes() const { return count * sizeof(float); }
  // Elements of block b.
  PYCOLL_ANYWHERE constexpr uint64_t length(uint64_t b) const {
    const uint64_t left = count - (b << kLogBlock);
    return left < kBlock ? left : kBlock;
  }
};

}  // namespace pycoll::kernels
