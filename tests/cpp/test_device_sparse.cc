// Sparse payloads of the CUDA kernels, on fibers, beside the CPU's: the same entries, the same wires, under every order
// of lanes.
#include <cstring>
#include <random>
#include <vector>

#include "check.h"
#include "codec/randomk.h"
#include "codec/sparse.h"
#include "codec/topk.h"
#include "device.h"
#include "kernels/device/check_body.h"
#include "kernels/device/sparse_wire.h"

using namespace pycoll;
using namespace pycoll::kernels;
using namespace device_test;

namespace {

// --- Top-k.

struct Topk {
  std::vector<float> residual;  // empty: none
  device::TopkKept kept{};

  // One step on `in`, beside select_topk's.
  void step(const std::vector<float>& in, size_t k, uint64_t seed, const std::string& what) {
    const size_t count = in.size(), most = std::min(k, count);
    std::vector<uint32_t> index(most), wanted_index(most);
    std::vector<float> value(most), wanted_value(most), wanted_residual = residual, copy = in;
    std::vector<uint64_t> scratch(device::TopkLayout(count, most).bytes / 8 + 1);
    uint32_t found = ~0u;
    Machine machine{seed};
    device::select(machine,
                   {.in = {copy.data(), count},
                    .residual = residual.empty() ? nullptr : residual.data(),
                    .k = most,
                    .kept = &kept,
                    .out = {index.data(), value.data()},
                    .entries = &found},
                   reinterpret_cast<std::byte*>(scratch.data()));
    TopkState state;
    Scratch temporary;
    const size_t entries = select_topk(in.data(), residual.empty() ? nullptr : wanted_residual.data(), count, k, state,
                                       {wanted_index.data(), wanted_value.data()}, temporary);
    const auto* work = reinterpret_cast<const device::TopkWork*>(scratch.data());
    from_array = work->from_array, candidates = work->candidates;
    CHECK(entries == most && found == most, what);
    CHECK(same(index, wanted_index), what);
    CHECK(same(value, wanted_value), what);
    CHECK(same(residual, wanted_residual), what);
    CHECK(same(copy, in), what);
  }
  uint32_t from_array = 0, candidates = 0;
};

TEST("device: top-k, cold and warm, equals select_topk") {
  for (const Data data : kAllData) {
    for (size_t count : {size_t(0), size_t(1), size_t(31), size_t(33), size_t(4095), size_t(4097), size_t(21000)}) {
      if (kQuick && count > (data == Data::normal ? 4097 : 33)) continue;
      for (size_t k : {size_t(0), size_t(1), count / 100, count / 2, count}) {
        const std::string what = concat("data ", int(data), " count ", count, " k ", k);
        const uint64_t seed = 1 + (count + k) % kSeeds;
        Topk plain, fed;
        fed.residual = make(data, count, 77);
        plain.step(make(data, count, 5), k, seed, what + " plain");
        for (uint32_t step = 0; step < 2; ++step) fed.step(make(data, count, step), k, seed, what + " fed");
      }
    }
  }
}

TEST("device: top-k goes every way that it has, and the result is the same") {
  const size_t count = 30000, k = 300;
  const auto in = make(Data::normal, count, 1);
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Topk topk;
    topk.residual = make(Data::normal, count, 2);
    topk.step(in, k, seed, "cold");
    CHECK(!topk.from_array && topk.candidates > k, "cold: candidates ", topk.candidates);
    topk.step(in, k, seed, "warm");
    CHECK(!topk.from_array, "warm: candidates ", topk.candidates);
    topk.kept.floor = 0x7f000000;
    topk.step(in, k, seed, "the floor is too high");
    CHECK(topk.from_array && topk.candidates < k, "high: candidates ", topk.candidates);
    topk.kept.floor = 1;
    topk.step(in, k, seed, "more candidates than there is room");
    CHECK(topk.from_array && topk.candidates > device::TopkLayout(count, k).room, "low: ", topk.candidates);
    topk.step(make(Data::ties, count, 3), k, seed, "ties");
  }
}

TEST("device: the margin of top-k adapts to where the next threshold is") {
  const size_t count = 40000, k = 400;
  Topk topk;
  uint32_t late = 0;
  for (uint32_t step = 0; step < 8; ++step) {
    topk.step(make(Data::normal, count, 100 + step), k, 1, concat("step ", step));
    late += step > 0 && topk.from_array;
  }
  CHECK(late <= 1 && topk.candidates < 2 * k, "late ", late, " candidates ", topk.candidates);
}

// --- Wires.

constexpr ValueFormat kFormats[] = {ValueFormat::f32, ValueFormat::f16, ValueFormat::bf16, ValueFormat::int8,
                                    ValueFormat::int4};

kernels::Header words_of(const codec::WireHeader& header) {
  return std::bit_cast<kernels::Header>(header);
}

// A codec's wire of `in`, beside what `encode(machine, wire, scratch)` makes of it on a device; and back.
template <class Encode>
void check_wire(const codec::Codec& codec, ValueFormat format, std::vector<float> in, std::vector<float> residual,
                uint64_t seed, Encode encode) {
  const std::string what = concat(codec.describe(), " of ", in.size(), " fed ", !residual.empty(), " seed ", seed);
  const size_t count = in.size();
  auto wanted_residual = residual;
  std::vector<std::byte> wanted(codec.most_bytes(count), kUntouched), got = wanted;
  const size_t bytes =
      codec.encode(in, residual.empty() ? nullptr : wanted_residual.data(), {.step = 7, .stream = 2}, wanted);
  const device::Wire wire{.in = {in.data(), count},
                          .residual = residual.empty() ? nullptr : residual.data(),
                          .format = format,
                          .sparse = words_of({.codec = uint8_t(codec.id()), .format = uint8_t(format), .count = count}),
                          .dense = words_of({.count = count}),
                          .data = got.data()};
  Machine machine{seed};
  encode(machine, wire);
  CHECK(std::memcmp(got.data(), wanted.data(), bytes) == 0, what);
  CHECK(same(residual, wanted_residual), what);

  codec::WireHeader header;
  std::memcpy(&header, got.data(), sizeof(header));
  if (header.codec == uint8_t(codec::CodecId::identity)) return;
  std::vector<float> into(count, 9), wanted_into(count), sum(count, 0.5f), wanted_sum = sum;
  codec::decode_into(wanted_into, wanted, "");
  codec::decode_add(wanted_sum, wanted, "");
  std::byte* const payload = got.data() + sizeof(header);
  if (codec.id() == codec::CodecId::topk) {
    const device::SparsePayload from{payload, SparseLayout(count, header.parameter, format), format};
    device::Found found;
    device::check(machine, {payload, header.bytes, 0, &from}, &found);
    CHECK(found.faults == 0 && codec::check_of(header, found.sum + uint32_t(header.bytes)) == header.check, what);
    device::decode_sparse<device::Into>(machine, {into.data(), count}, from);
    device::decode_sparse<device::Add>(machine, {sum.data(), count}, from);
  } else {
    device::decode_random(machine, device::Undraw<device::Into>{payload, count, header.parameter, format, into.data()});
    device::decode_random(machine, device::Undraw<device::Add>{payload, count, header.parameter, format, sum.data()});
  }
  CHECK(same(into, wanted_into), what);
  CHECK(same(sum, wanted_sum), what);
}

void check_topk_wire(codec::Amount amount, Choice choice, ValueFormat format, const std::vector<float>& in,
                     const std::vector<float>& residual, uint64_t seed) {
  const codec::TopK codec(amount, choice == Choice::exact, format);
  check_wire(codec, format, in, residual, seed, [&](Machine& machine, const device::Wire& wire) {
    const size_t k = codec.entries(in.size());
    std::vector<uint64_t> scratch(device::topk_wire_layout(in.size(), k).bytes / 8 + 1);
    device::encode_topk(machine, wire, k, choice, reinterpret_cast<std::byte*>(scratch.data()));
  });
}

TEST("device: top-k wires, exact and near, of every format") {
  for (const auto format : kFormats) {
    for (const Choice choice : {Choice::exact, Choice::near}) {
      for (size_t count : {size_t(0), size_t(1), size_t(3), size_t(700), size_t(20011)}) {
        for (const double ratio : {0.02, 0.9}) {
          if (kQuick && (count > 700 || (count < 700 && format != ValueFormat::int4))) continue;
          const uint64_t seed = 1 + (count + int(format)) % kSeeds;
          check_topk_wire({.ratio = ratio}, choice, format, make(Data::normal, count, 1), {}, seed);
          check_topk_wire({.ratio = ratio}, choice, format, make(Data::wide, count, 1), make(Data::normal, count, 2),
                          seed);
        }
      }
    }
  }
}

TEST("device: a wire becomes an identity at the same number of entries") {
  const size_t count = 700;
  for (const auto format : {ValueFormat::f32, ValueFormat::bf16}) {
    const size_t k = device::dense_from(count, count, format);
    CHECK(k > 1 && k < count, k);
    for (const size_t entries : {k - 1, k})
      check_topk_wire({.k = entries}, Choice::exact, format, make(Data::normal, count, 1), {}, 1);
  }
}

TEST("device: near top-k of data that are not ordinary") {
  for (const Data data : kAllData) {
    for (const double ratio : {0.01, 0.3}) {
      const size_t count = kQuick ? 1003 : 12000;
      for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
        const auto format = kFormats[seed + 1];
        check_topk_wire({.ratio = ratio}, Choice::near, format, make(data, count, uint32_t(seed)), {}, seed);
        check_topk_wire({.ratio = ratio}, Choice::near, format, make(data, count, uint32_t(seed)), make(data, count, 9),
                        seed);
      }
    }
  }
}

// What the CPU's near selection does with these, and so which way the device goes.
TEST("device: near top-k goes every way that it has") {
  const size_t count = 40000, k = count / 2;
  const auto near = [&](const std::vector<float>& in) {
    std::vector<uint32_t> index(k);
    std::vector<float> value(k);
    TopkState state;
    Scratch scratch;
    return select_near(in.data(), nullptr, count, k, state, {index.data(), value.data()}, scratch);
  };
  auto in = make(Data::normal, count, 5);
  CHECK(near(in) < k, "as many as the threshold leaves");
  check_topk_wire({.k = k}, Choice::near, ValueFormat::bf16, in, {}, 1);
  const TopkSample sample(count, k - k / 4);
  CHECK(sample.rank, "");
  auto high = in, low = in;
  for (size_t i = 0; i < sample.count; ++i) high[sample[i]] = 100, low[sample[i]] = 0.001f;
  CHECK(near(high) == k, "the threshold was too high");
  check_topk_wire({.k = k}, Choice::near, ValueFormat::bf16, high, make(Data::zeros, count, 1), 1);
  CHECK(near(low) == k, "the threshold was too low");
  check_topk_wire({.k = k}, Choice::near, ValueFormat::bf16, low, make(Data::zeros, count, 1), 1);
}

TEST("device: wires of several blocks of a sparse payload") {
  const size_t count = 3 * codec::kSparseBlock + 77;
  std::vector<float> in(count);
  for (size_t i = 0; i < 900; ++i) in[i % 2 ? 70000 + 50 * i : i * 60] = float(i + 1);  // none in the third block
  in[count - 1] = -5;
  for (const auto format : kFormats)
    if (!kQuick || format == ValueFormat::int4)
      check_topk_wire({.k = 901}, Choice::exact, format, in, {}, 1 + uint64_t(format) % kSeeds);
}

TEST("device: random entries are the CPU's") {
  for (const auto format : kFormats) {
    for (size_t count : {size_t(0), size_t(1), size_t(3), size_t(1000), size_t(70001)}) {
      for (const double ratio : {0.01, 0.99}) {
        if (kQuick && (count > 1000 || format == ValueFormat::f16)) continue;
        const codec::RandomK codec({.ratio = ratio}, 0x123456789abcdef, format);
        const auto encode = [&](Machine& machine, const device::Wire& wire) {
          const Strata strata{0x123456789abcdef, 7, count, codec.entries(count)};
          std::vector<uint64_t> scratch(device::WireLayout(0, strata.k).bytes / 8 + 1);
          device::encode_random(machine, wire, strata, reinterpret_cast<std::byte*>(scratch.data()));
        };
        const uint64_t seed = 1 + (count + int(format)) % kSeeds;
        check_wire(codec, format, make(Data::wide, count, 1), {}, seed, encode);
        check_wire(codec, format, make(Data::special, count, 1), make(Data::normal, count, 2), seed, encode);
      }
    }
  }
}

TEST("device: sparse entries out of their places are found, and touch nothing") {
  const size_t count = 2 * codec::kSparseBlock + 100, k = 40;
  std::vector<float> in(count);
  for (size_t i = 0; i < k; ++i) in[count - 1 - i * 3300] = float(i + 1);
  const codec::TopK codec({.k = k}, true, ValueFormat::int8);
  std::vector<std::byte> wire(codec.most_bytes(count));
  codec.encode(in, nullptr, {}, wire);
  const SparseLayout layout(count, k, ValueFormat::int8);
  const auto faults = [&](size_t at, uint32_t value, size_t bytes) {
    std::vector<std::byte> payload(wire.begin() + 32, wire.end());
    std::memcpy(&payload[at], &value, bytes);
    const device::SparsePayload from{payload.data(), layout, ValueFormat::int8};
    device::Found found;
    Machine machine{1};
    device::check(machine, {payload.data(), payload.size(), 0, &from}, &found);
    std::vector<float> out(count);
    device::decode_sparse<device::Into>(machine, {out.data(), count}, from);
    return found.faults;
  };
  const size_t last = layout.offsets + 2 * (k - 1);
  CHECK(faults(last, 99, 2) == 0, "the last element is one");
  CHECK(faults(last, 100, 2) > 0, "an offset behind the end");
  CHECK(faults(layout.offsets + 2, 0, 2) > 0, "offsets that do not ascend");
  for (const uint32_t entries : {0u, 1000u, 0xffffffffu, 0x80000000u})
    for (size_t b = 0; b < layout.blocks; ++b) CHECK(faults(4 * b, entries, 4) > 0, entries, " in block ", b);
}

}  // namespace

int main(int argc, char** argv) {
  return check::run(argc, argv);
}
