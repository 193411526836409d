#include "codec/sparse.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "codec/blocks.h"
#include "core/error.h"
#include "kernels/checksum.h"
#include "kernels/element.h"

namespace pycoll::codec {
namespace {

using Layout = kernels::SparseLayout;

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

#define PYCOLL_WANT(condition, ...) \
  PYCOLL_CHECK_AS(TransportError, condition, "sparse payload ", source, ": ", __VA_ARGS__)

// What the header says of the payload's length, before anything is computed from it.
Layout checked_layout(const WireHeader& header, ConstBytes payload, const std::string& source) {
  const auto format = ValueFormat(header.format);
  PYCOLL_WANT(CodecId(header.codec) == CodecId::topk, "codec ", int(header.codec), " is not sparse");
  PYCOLL_WANT(is_value_format(format), "values in format ", name_of(format));
  PYCOLL_WANT(header.count < (uint64_t(1) << 32), header.count, " elements, wanted fewer than 2^32");
  const Layout layout(header.count, header.parameter, format);
  PYCOLL_WANT(header.bytes == payload.size() && layout.bytes == payload.size(), payload.size(), " bytes, header says ",
              header.bytes, ", wanted ", layout.bytes, " for ", layout.entries, " entries of ", layout.count,
              " elements");
  return layout;
}

// A payload whose parts fit together: no entry lies outside, or twice.
struct Entries {
  const Layout layout;
  const ValueFormat format;
  const std::byte* const payload;

  Entries(const WireHeader& header, ConstBytes bytes, const std::string& source)
      : layout(checked_layout(header, bytes, source)), format(ValueFormat(header.format)), payload(bytes.data()) {
    size_t total = 0;
    for (size_t b = 0; b < layout.blocks; ++b) total += in_block(b);
    PYCOLL_WANT(total == layout.entries, "blocks have ", total, " entries, header says ", layout.entries);
    size_t i = 0;
    for (size_t b = 0; b < layout.blocks; ++b) {
      int last = -1;
      bool ascending = true;
      for (const size_t end = i + in_block(b); i < end; ++i) {
        ascending &= last < int(offset(i));
        last = int(offset(i));
      }
      PYCOLL_WANT(ascending, "offsets in block ", b, " do not ascend");
      PYCOLL_WANT(last < int(layout.length(b)), "offset ", last, " in block ", b, " of ", layout.length(b),
                  " elements");
    }
  }

  size_t in_block(size_t b) const { return load<uint32_t>(payload, b); }
  uint16_t offset(size_t i) const { return load<uint16_t>(payload + layout.offsets, i); }

  // Calls body(index, value) for each entry.
  template <class Body>
  void for_each(Body body) const {
    const std::byte* values = payload + layout.values;
    std::unique_ptr<float[]> decoded;
    if (format != ValueFormat::f32) {
      decoded.reset(new float[layout.entries]);
      read_values(decoded.get(), format, values, layout.entries);
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
  PYCOLL_WANT(payload.size() == header.bytes && header.bytes == blocks_bytes(header, source), payload.size(),
              " bytes, header says ", header.bytes, " for ", header.count, " elements without gaps");
}

void check_count(size_t count, const WireHeader& header, const std::string& source) {
  PYCOLL_WANT(count == header.count, "holds ", header.count, " elements, wanted ", count);
}

#undef PYCOLL_WANT

}  // namespace

size_t sparse_most_bytes(size_t count, size_t entries, ValueFormat format) {
  const Layout layout(count, std::min(entries, count), format);
  return sizeof(WireHeader) + std::min(layout.dense_bytes(), layout.bytes);
}

size_t sparse_encode(const uint32_t* index, const float* value, size_t entries, uint32_t first, size_t count,
                     ValueFormat format, CodecId id, Bytes wire) {
  const Layout layout(count, entries, format);
  std::byte* const payload = wire.data() + sizeof(WireHeader);
  if (layout.bytes > layout.dense_bytes()) {
    const size_t bytes = layout.dense_bytes();
    std::memset(payload, 0, bytes);
    for (size_t i = 0; i < entries; ++i) store(payload, index[i] - first, value[i]);
    return seal(wire, {.codec = uint8_t(CodecId::identity), .count = count, .bytes = bytes},
                kernels::checksum({payload, bytes}));
  }
  std::memset(payload, 0, layout.values);
  write_values(payload + layout.values, format, value, entries);
  std::memset(payload + layout.values + values_bytes(format, entries), 0,
              layout.offsets - layout.values - values_bytes(format, entries));
  size_t i = 0;
  for (size_t b = 0; b < layout.blocks; ++b) {
    const size_t begin = first + b * kSparseBlock, before = i;
    for (; i < entries && index[i] - begin < kSparseBlock; ++i)
      store(payload + layout.offsets, i, uint16_t(index[i] - begin));
    store(payload, b, uint32_t(i - before));
  }
  return seal(wire,
              {.codec = uint8_t(id),
               .format = uint8_t(format),
               .count = count,
               .bytes = layout.bytes,
               .parameter = uint32_t(entries)},
              kernels::checksum({payload, layout.bytes}));
}

void sparse_lost(float* value, size_t entries, ConstBytes wire) {
  const auto header = load<WireHeader>(wire.data(), 0);
  if (is_identity(header)) {
    std::fill_n(value, entries, 0.0f);
    return;
  }
  const auto format = ValueFormat(header.format);
  const std::byte* const payload = payload_of(header, wire).data();
  subtract_values(value, format, payload + Layout(header.count, entries, format).values, entries);
}

void sparse_into(std::span<float> out, const WireHeader& header, ConstBytes payload, const std::string& source) {
  check_count(out.size(), header, source);
  if (is_identity(header)) {
    check_identity(header, payload, source);
    return blocks_into(out, header, payload);
  }
  const Entries entries(header, payload, source);
  std::fill(out.begin(), out.end(), 0.0f);
  entries.for_each([&](size_t i, float value) { out[i] = value; });
}

void sparse_add(std::span<float> acc, const WireHeader& header, ConstBytes payload, const std::string& source) {
  check_count(acc.size(), header, source);
  if (is_identity(header)) {
    check_identity(header, payload, source);
    return blocks_add(acc, header, payload);
  }
  Entries(header, payload, source).for_each([&](size_t i, float value) {
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
    Entries(header, payload, source).for_each(add);
    return entries;
  }
  check_identity(header, payload, source);
  for (size_t i = 0; i < header.count; ++i)
    if (load<uint32_t>(payload.data(), i) != 0) add(i, load<float>(payload.data(), i));
  return entries;
}

}  // namespace pycoll::codec
