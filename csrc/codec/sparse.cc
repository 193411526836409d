#include "codec/sparse.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

#include "core/error.h"
#include "kernels/checksum.h"
#include "kernels/element.h"
#include "kernels/quantize.h"
#include "kernels/reduce.h"

namespace pycoll::codec {
namespace {

constexpr size_t round_up(size_t bytes, size_t to) {
  return (bytes + to - 1) / to * to;
}

template <class T>
T load(const std::byte* from, size_t i) {
  T value;
  std::memcpy(&value, from + i * sizeof(T), sizeof(T));
  return value;
}
template <class T>
void store(std::byte* to, size_t i, T value) {
  std::memcpy(to + i * sizeof(T), &value, sizeof(T));
}

bool is_grid(ValueFormat format) {
  return format == ValueFormat::int8 || format == ValueFormat::int4;
}
kernels::Quantizer quantizer(ValueFormat format) {
  return format == ValueFormat::int8 ? kernels::Quantizer{.grid = kernels::Grid::int8, .block = 256}
                                     : kernels::Quantizer{.grid = kernels::Grid::int4, .block = 128};
}

// Where the parts of a payload begin.
struct Layout {
  size_t count, entries, blocks, values, offsets, bytes;
  Layout(size_t count, size_t entries, ValueFormat format)
      : count(count),
        entries(entries),
        blocks((count + kSparseBlock - 1) / kSparseBlock),
        values(round_up(blocks * sizeof(uint32_t), 16)),
        offsets(values + round_up(value_bytes(entries, format), sizeof(uint16_t))),
        bytes(offsets + entries * sizeof(uint16_t)) {}
  bool dense() const { return bytes > count * sizeof(float); }
  // Elements of block b.
  size_t length(size_t b) const { return std::min(kSparseBlock, count - b * kSparseBlock); }

 private:
  static size_t value_bytes(size_t entries, ValueFormat format) {
    if (is_grid(format)) return kernels::quantized_bytes(quantizer(format).grid, quantizer(format).block, entries);
    return entries * (format == ValueFormat::f32 ? sizeof(float) : sizeof(uint16_t));
  }
};

DType half_of(ValueFormat format) {
  return format == ValueFormat::f16 ? DType::f16 : DType::bf16;
}

void write_values(std::byte* to, const float* value, size_t entries, ValueFormat format) {
  if (entries == 0) return;
  if (is_grid(format)) return kernels::quantize(quantizer(format), value, nullptr, entries, to);
  if (format != ValueFormat::f32) return kernels::narrow_into({to, entries, half_of(format)}, value);
  std::memcpy(to, value, entries * sizeof(float));
}

void read_values(float* value, const std::byte* from, size_t entries, ValueFormat format) {
  if (entries == 0) return;
  const kernels::Quantizer how = quantizer(format);
  if (is_grid(format)) return kernels::dequantize_into(how.grid, how.block, value, from, entries);
  if (format != ValueFormat::f32) return kernels::widen_into(value, {from, entries, half_of(format)});
  std::memcpy(value, from, entries * sizeof(float));
}

// A payload whose parts fit together: nothing that is read through it lies outside.
struct Checked {
  Layout layout;
  ValueFormat format;
  const std::byte* payload;

  Checked(const WireHeader& header, ConstBytes bytes, const std::string& source)
      : layout(header.count, header.parameter, ValueFormat(header.format)),
        format(ValueFormat(header.format)),
        payload(bytes.data()) {
    const auto need = [&](bool holds, auto&&... what) {
      PYCOLL_CHECK_AS(TransportError, holds, "sparse payload ", source, ": ", what...);
    };
    need(header.count < (uint64_t(1) << 32), header.count, " elements, wanted fewer than 2^32");
    need(is_sparse_format(format), "values in format ", int(header.format), ", which sparse payloads do not have");
    need(header.bytes == bytes.size(), "the header says ", header.bytes, " bytes, ", bytes.size(), " came");
    need(layout.bytes == bytes.size(), bytes.size(), " bytes, wanted ", layout.bytes, " for ", layout.entries,
         " entries of ", layout.count, " elements");
    size_t total = 0;
    for (size_t b = 0; b < layout.blocks; ++b) {
      const size_t entries = in_block(b);
      need(entries <= layout.length(b), "block ", b, " of ", layout.length(b), " elements has ", entries, " entries");
      total += entries;
    }
    need(total == layout.entries, "blocks have ", total, " entries, the header says ", layout.entries);
    size_t i = 0;
    for (size_t b = 0; b < layout.blocks; ++b) {
      int last = -1;
      bool ascending = true;
      for (const size_t end = i + in_block(b); i < end; ++i) {
        ascending &= last < int(offset(i));
        last = offset(i);
      }
      need(ascending, "offsets of block ", b, " do not ascend");
      need(last < int(layout.length(b)), "offset ", last, " in block ", b, " of ", layout.length(b), " elements");
    }
  }

  size_t in_block(size_t b) const { return load<uint32_t>(payload, b); }
  uint16_t offset(size_t i) const { return load<uint16_t>(payload + layout.offsets, i); }

  // Calls body(index, value) for each entry.
  template <class Body>
  void for_each(Body body) const {
    std::unique_ptr<float[]> decoded;
    const std::byte* values = payload + layout.values;
    if (format != ValueFormat::f32) {
      decoded.reset(new float[layout.entries]);
      read_values(decoded.get(), values, layout.entries, format);
      values = reinterpret_cast<const std::byte*>(decoded.get());
    }
    size_t i = 0;
    for (size_t b = 0; b < layout.blocks; ++b)
      for (const size_t end = i + in_block(b); i < end; ++i) body(b * kSparseBlock + offset(i), load<float>(values, i));
  }
};

bool is_identity(const WireHeader& header) {
  return CodecId(header.codec) == CodecId::identity;
}

void check_identity(const WireHeader& header, ConstBytes payload, const std::string& source) {
  PYCOLL_CHECK_AS(TransportError,
                  header.bytes == payload.size() && payload.size() / sizeof(float) == header.count &&
                      payload.size() % sizeof(float) == 0,
                  "identity payload ", source, ": ", payload.size(), " bytes for ", header.count, " elements");
}

void check_count(size_t count, const WireHeader& header, const std::string& source) {
  PYCOLL_CHECK_AS(TransportError, count == header.count, "sparse payload ", source, ": ", header.count,
                  " elements, wanted ", count);
}

}  // namespace

bool is_sparse_format(ValueFormat format) {
  return format <= ValueFormat::int4;
}

size_t sparse_most_bytes(size_t count, size_t entries, ValueFormat format) {
  return sizeof(WireHeader) + std::min(count * sizeof(float), Layout(count, std::min(entries, count), format).bytes);
}

size_t sparse_encode(const uint32_t* index, const float* value, size_t entries, uint32_t first, size_t count,
                     ValueFormat format, CodecId id, Bytes wire) {
  const Layout layout(count, entries, format);
  WireHeader header;
  header.codec = uint8_t(id);
  header.format = uint8_t(format);
  header.count = count;
  header.bytes = layout.bytes;
  header.parameter = uint32_t(entries);
  std::byte* const payload = wire.data() + sizeof(header);
  if (layout.dense()) {
    header.codec = uint8_t(CodecId::identity);
    header.format = uint8_t(ValueFormat::f32);
    header.bytes = count * sizeof(float);
    header.parameter = 0;
    std::memset(payload, 0, header.bytes);
    for (size_t i = 0; i < entries; ++i) store(payload, index[i] - first, value[i]);
  } else {
    std::memset(payload, 0, layout.values);
    if (entries) payload[layout.offsets - 1] = {};  // the last value, or padding behind it
    write_values(payload + layout.values, value, entries, format);
    size_t i = 0;
    for (size_t b = 0; b < layout.blocks; ++b) {
      const size_t begin = first + b * kSparseBlock, before = i;
      for (; i < entries && index[i] - begin < kSparseBlock; ++i)
        store(payload + layout.offsets, i, uint16_t(index[i] - begin));
      store(payload, b, uint32_t(i - before));
    }
  }
  return seal(wire, header, kernels::checksum(wire.subspan(sizeof(header), header.bytes)));
}

void sparse_into(std::span<float> out, const WireHeader& header, ConstBytes payload, const std::string& source) {
  check_count(out.size(), header, source);
  if (is_identity(header)) {
    check_identity(header, payload, source);
    if (!out.empty()) std::memcpy(out.data(), payload.data(), payload.size());
    return;
  }
  const Checked checked(header, payload, source);
  std::fill(out.begin(), out.end(), 0.0f);
  checked.for_each([&](size_t i, float value) { out[i] = value; });
}

void sparse_add(std::span<float> acc, const WireHeader& header, ConstBytes payload, const std::string& source) {
  check_count(acc.size(), header, source);
  if (is_identity(header)) {
    check_identity(header, payload, source);
    const Buffer to{reinterpret_cast<std::byte*>(acc.data()), acc.size(), DType::f32};
    return kernels::add_into(to, {payload.data(), acc.size(), DType::f32}, ReduceOp::sum);
  }
  Checked(header, payload, source).for_each([&](size_t i, float value) {
    acc[i] = kernels::canonical(acc[i] + value);
  });
}

size_t sparse_room(const WireHeader& header) {
  return is_identity(header) ? header.count : header.parameter;
}

size_t sparse_entries(const WireHeader& header, ConstBytes payload, uint32_t* index, float* value,
                      const std::string& source) {
  size_t entries = 0;
  const auto add = [&](size_t i, float x) {
    index[entries] = uint32_t(i);
    value[entries++] = x;
  };
  if (!is_identity(header)) {
    Checked(header, payload, source).for_each(add);
    return entries;
  }
  check_identity(header, payload, source);
  for (size_t i = 0; i < header.count; ++i)
    if (load<uint32_t>(payload.data(), i) != 0) add(i, load<float>(payload.data(), i));
  return entries;
}

void sparse_lost(float* value, size_t entries, ConstBytes wire) {
  WireHeader header;
  std::memcpy(&header, wire.data(), sizeof(header));
  const std::unique_ptr<float[]> carried(new float[entries]);
  if (is_identity(header)) {
    std::copy_n(value, entries, carried.get());
  } else {
    const auto format = ValueFormat(header.format);
    const std::byte* const payload = wire.data() + sizeof(header);
    read_values(carried.get(), payload + Layout(header.count, entries, format).values, entries, format);
  }
  for (size_t i = 0; i < entries; ++i) {
    value[i] -= carried[i];
    if (!std::isfinite(value[i])) value[i] = 0;
  }
}

}  // namespace pycoll::codec
