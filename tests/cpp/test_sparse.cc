// Sparse payloads: there and back, what they cost, and that no bytes whatever make the decoder read or write astray.
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "check.h"
#include "codec/sparse.h"

using namespace pycoll;
using namespace pycoll::codec;

namespace {

struct Sparse {
  std::vector<uint32_t> index;
  std::vector<float> value;
};

Sparse sparse(uint32_t first, size_t count, size_t entries, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  Sparse out;
  for (size_t i = 0; i < count; ++i)  // each with equal chance, ascending
    if (random() % (count - i) < entries - out.index.size()) {
      out.index.push_back(first + uint32_t(i));
      out.value.push_back(normal(random));
    }
  return out;
}

struct Wire {
  std::vector<std::byte> bytes;
  WireHeader header() const {
    WireHeader header;
    std::memcpy(&header, bytes.data(), sizeof(header));
    return header;
  }
  ConstBytes payload() const { return ConstBytes(bytes).subspan(sizeof(WireHeader)); }
};

Wire encoded(const Sparse& from, uint32_t first, size_t count, ValueFormat format) {
  const size_t most = sparse_most_bytes(count, from.index.size(), format);
  Wire wire{std::vector<std::byte>(most + 1, std::byte(0x5a))};
  const size_t bytes = sparse_encode(from.index.data(), from.value.data(), from.index.size(), first, count, format,
                                     CodecId::topk, {wire.bytes.data(), most});
  CHECK(bytes <= most && wire.bytes[most] == std::byte(0x5a), bytes, " bytes, at most ", most);
  wire.bytes.resize(bytes);
  return wire;
}

// By how much a value of magnitude up to 6 may change: half a step of the format.
float tolerance(ValueFormat format, float value) {
  switch (format) {
    case ValueFormat::f16: return std::max(0x1p-11f * std::fabs(value), 0x1p-25f);
    case ValueFormat::bf16: return 0x1p-9f * std::fabs(value);
    case ValueFormat::int8: return 0.501f * 6 / 127;
    case ValueFormat::int4: return 0.501f * 6 / 7;
    default: return 0;
  }
}

const std::vector<ValueFormat> kFormats = {ValueFormat::f32, ValueFormat::f16, ValueFormat::bf16, ValueFormat::int8,
                                           ValueFormat::int4};

const bool kQuick = [] {
  const char* quick = std::getenv("PYCOLL_TEST_QUICK");
  return quick && *quick == '1';
}();

}  // namespace

TEST("there and back, in every format, at the edges of blocks") {
  for (const uint32_t first : {0u, 12345u, 4000000000u})
    for (const size_t count :
         {size_t(0), size_t(1), size_t(40), size_t(65535), size_t(65536), size_t(65537), size_t(200000)})
      for (const size_t entries : {size_t(0), count ? size_t(1) : 0, count / 100, count / 2, count})
        for (const ValueFormat format : kFormats) {
          const std::string what = concat(count, " elements, ", entries, " entries, format ", int(format));
          const Sparse from = sparse(first, count, entries, uint32_t(count + entries));
          const Wire wire = encoded(from, first, count, format);
          std::vector<float> out(count, NAN), acc(count, 1.5f), lost = from.value;
          sparse_into(out, wire.header(), wire.payload(), "here");
          sparse_add(acc, wire.header(), wire.payload(), "here");
          sparse_lost(lost.data(), entries, wire.bytes);
          Sparse back{std::vector<uint32_t>(sparse_room(wire.header())),
                      std::vector<float>(sparse_room(wire.header()))};
          const size_t found =
              sparse_entries(wire.header(), wire.payload(), back.index.data(), back.value.data(), "here");
          CHECK(found == entries, what, ": ", found);
          size_t next = 0;
          for (size_t i = 0; i < count; ++i) {
            CHECK(acc[i] == out[i] + 1.5f, what, ": at ", i);
            if (next == entries || from.index[next] != first + i) {
              CHECK(out[i] == 0, what, ": at ", i);
              continue;
            }
            CHECK(back.index[next] == i && back.value[next] == out[i], what, ": entry ", next);
            const float value = from.value[next];
            CHECK(std::fabs(value - out[i]) <= tolerance(format, value), what, ": ", value, " became ", out[i]);
            CHECK(lost[next] == value - out[i], what, ": lost ", lost[next]);
            ++next;
          }
        }
}

TEST("1 % of values in f32 costs 6 bytes an entry, and nothing costs more than the array") {
  const size_t count = 1000000, entries = count / 100;
  CHECK(sparse_most_bytes(count, entries, ValueFormat::f32) == 32 + 64 + 6 * entries, "");
  CHECK(sparse_most_bytes(count, entries, ValueFormat::bf16) == 32 + 64 + 4 * entries, "");
  CHECK(sparse_most_bytes(count, count, ValueFormat::f32) == 32 + 4 * count, "");
  const Wire wire = encoded(sparse(0, 10, 10, 1), 0, 10, ValueFormat::f32);
  CHECK(CodecId(wire.header().codec) == CodecId::identity && wire.bytes.size() == 32 + 40, wire.bytes.size());
}

TEST("what is not finite arrives, and leaves nothing behind") {
  const Sparse from{{3, 50, 70, 99}, {NAN, INFINITY, -INFINITY, 3e38f}};
  for (const ValueFormat format : kFormats) {
    const Wire wire = encoded(from, 0, 100, format);
    std::vector<float> out(100), lost = from.value;
    sparse_into(out, wire.header(), wire.payload(), "here");
    sparse_lost(lost.data(), lost.size(), wire.bytes);
    CHECK(std::isnan(out[3]) && out[50] == INFINITY && out[70] == -INFINITY, "format ", int(format));
    for (const float x : lost) CHECK(std::isfinite(x), "format ", int(format), ": lost ", x);
  }
}

// Memory of exactly `bytes`, so that ASan sees what is read beyond.
TEST("mutated and truncated payloads are refused or decoded, never more") {
  const size_t rounds = kQuick ? 20000 : 1000000;
  std::mt19937 random(11);
  std::vector<Wire> seeds;
  for (const size_t count : {size_t(1), size_t(300), size_t(65537), size_t(70000)})
    for (const ValueFormat format : kFormats)
      for (const size_t entries : {size_t(0), size_t(1), size_t(20)})
        if (entries <= count) seeds.push_back(encoded(sparse(0, count, entries, 5), 0, count, format));
  size_t refused = 0;
  std::vector<uint32_t> index(1 << 18);
  std::vector<float> value(1 << 18);
  for (size_t round = 0; round < rounds; ++round) {
    Wire wire = seeds[random() % seeds.size()];
    const uint32_t how = random() % 4;
    if (how == 0) wire.bytes.resize(sizeof(WireHeader) + random() % (wire.payload().size() + 1));
    for (uint32_t times = 1 + random() % 3; how != 0 && times > 0; --times) {
      const size_t at = 8 + random() % (wire.bytes.size() - 8);
      wire.bytes[at] = std::byte(random() % 3 == 0 ? random() : random() % 3);
    }
    if (how == 2) wire.bytes.resize(wire.bytes.size() + random() % 8);
    WireHeader header = wire.header();
    if (header.count > 70000) header.count = 70000;  // check() has compared it with the caller's
    const ConstBytes payload = wire.payload();
    try {
      if (sparse_room(header) > index.size()) header.parameter = uint32_t(index.size());
      const size_t entries = sparse_entries(header, payload, index.data(), value.data(), "fuzz");
      CHECK(entries <= header.count, entries);
      for (size_t i = 0; i < entries; ++i) CHECK(index[i] < header.count, index[i]);
      if (round % 16 == 0) {
        std::vector<float> acc(header.count);
        sparse_add(acc, header, payload, "fuzz");
        sparse_into(acc, header, payload, "fuzz");
      }
    } catch (const TransportError&) {
      ++refused;
    }
  }
  CHECK(refused > rounds / 10 && refused < rounds, refused, " refused of ", rounds);
}

int main(int argc, char** argv) {
  return check::run(argc, argv);
}
