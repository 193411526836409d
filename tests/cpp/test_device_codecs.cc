// The bodies of the CUDA kernels for dense payloads, on fibers, beside the CPU's: the same bytes under every order of
// lanes.
#include <cstring>
#include <random>
#include <vector>

#include "check.h"
#include "codec/cast.h"
#include "device.h"
#include "kernels/checksum.h"
#include "kernels/device/check_body.h"
#include "kernels/device/quantize_body.h"

using namespace pycoll;
using namespace pycoll::kernels;
using namespace device_test;

namespace {

uint32_t log_of(uint32_t block) {
  return uint32_t(std::countr_zero(block));
}

constexpr size_t kGuard = 16;  // bytes behind a payload that nothing may touch

std::vector<std::byte> room(Grid grid, uint32_t block, size_t count) {
  return std::vector<std::byte>(quantized_bytes(grid, block, count) + kGuard, kUntouched);
}

void check_quantize(const Quantizer& how, std::vector<float> in, std::vector<float> residual, uint64_t seed) {
  const std::string what = concat("grid ", int(how.grid), " block ", how.block, " count ", in.size(), " residual ",
                                  !residual.empty(), " stochastic ", how.stochastic, " seed ", seed);
  const size_t count = in.size();
  auto wanted = room(how.grid, how.block, count), got = wanted;
  auto wanted_residual = residual;
  quantize(how, in.data(), residual.empty() ? nullptr : wanted_residual.data(), count, wanted.data());
  std::vector<float> into(count), wanted_into(count), sum = in, wanted_sum = in;
  device::with_grid(how.grid, [&](auto grid) {
    const device::Payload payload{got.data(), count, log_of(how.block)};
    const device::Array from{{in.data(), count}, {residual.empty() ? nullptr : residual.data(), residual.size()}};
    Machine machine{seed};
    const device::Quantize<grid(), device::Array> encode{how, from, payload};
    machine.run(encode.blocks(), encode);
    const device::Dequantize<grid(), device::Into> decode{payload, {into.data(), count}};
    machine.run(decode.blocks(), decode);
    const device::Dequantize<grid(), device::Add> add{payload, {sum.data(), count}};
    machine.run(add.blocks(), add);
  });
  CHECK(same(got, wanted), what);
  CHECK(same(residual, wanted_residual), what);
  dequantize_into(how.grid, how.block, wanted_into.data(), wanted.data(), count);
  dequantize_add(how.grid, how.block, wanted_sum.data(), wanted.data(), count);
  CHECK(same(into, wanted_into), what);
  CHECK(same(sum, wanted_sum), what);
}

TEST("device: quantize and back, every grid, block and residual") {
  for (int g = 0; g < kGrids; ++g) {
    for (uint32_t block : {32u, 64u, 128u, 256u, 512u, 1024u, 4096u}) {
      if (kQuick && block != 32 && block != 1024) continue;
      for (size_t count : {size_t(0), size_t(1), size_t(31), size_t(32), size_t(33), block - 1ul, block + 1ul,
                           size_t(2 * device::kTile + block + 7)}) {
        if (kQuick && count > 2000 && g != int(Grid::int8)) continue;
        const uint64_t seed = 1 + (count + block) % kSeeds;
        const auto in = make(Data::normal, count, block);
        const Quantizer how{.grid = Grid(g), .block = block};
        check_quantize(how, in, {}, seed);
        check_quantize(how, in, make(Data::wide, count, 7), seed);
      }
    }
  }
}

TEST("device: quantize of data that is not ordinary, under several orders of lanes") {
  for (int g = 0; g < kGrids; ++g) {
    for (const Data data : kAllData) {
      for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
        const size_t count = kQuick ? 1003 : 5003;
        const Quantizer how{.grid = Grid(g), .block = seed == 1 ? 64u : seed == 2 ? 2048u : 256u};
        check_quantize(how, make(data, count, uint32_t(seed)), {}, seed);
        check_quantize(how, make(data, count, uint32_t(seed)), make(data, count, 9), seed);
      }
    }
  }
}

TEST("device: stochastic rounding draws the same numbers, wherever an array begins") {
  for (const Grid grid : {Grid::int8, Grid::int4})
    for (uint64_t index : {0ull, 1ull, 2ull, 3ull, (1ull << 34) - 2})
      check_quantize({.grid = grid, .stochastic = true, .seed = 5, .step = 7, .index = index, .stream = 3},
                     make(Data::normal, 4099, 1), {}, 1 + index % 3);
}

TEST("device: arrays at odd addresses") {
  std::vector<float> in = make(Data::normal, 4100, 3), copy(in.begin() + 1, in.end());
  auto wanted = room(Grid::int8, 256, copy.size()), got = wanted;
  quantize({}, copy.data(), nullptr, copy.size(), wanted.data());
  const device::Quantize<Grid::int8, device::Array> encode{
      {}, {{in.data() + 1, copy.size()}, {}}, {got.data(), copy.size(), 8}};
  Machine{1}.run(encode.blocks(), encode);
  CHECK(same(got, wanted), "");
}

TEST("device: the sum of peers' payloads, quantized once") {
  for (int g = 0; g < kGrids; ++g) {
    for (uint32_t peers : {1u, 2u, 7u}) {
      for (const Data data : {Data::normal, Data::special, Data::zeros}) {
        const uint32_t block = peers == 2 ? 1024 : 128;
        const size_t count = 4096 + 131;
        const Quantizer how{.grid = Grid(g), .block = block};
        std::vector<std::vector<std::byte>> payloads;
        std::vector<float> sum(count);
        for (uint32_t p = 0; p < peers; ++p) {
          payloads.push_back(room(how.grid, block, count));
          const auto in = make(p == 1 ? data : Data::normal, count, p);
          quantize(how, in.data(), nullptr, count, payloads[p].data());
          (p ? dequantize_add : dequantize_into)(how.grid, block, sum.data(), payloads[p].data(), count);
        }
        auto wanted = room(how.grid, block, count), got = wanted;
        quantize(how, sum.data(), nullptr, count, wanted.data());
        device::with_grid(how.grid, [&](auto grid) {
          device::Peers<grid()> from{.payload = {}, .peers = peers, .count = count, .log_block = log_of(block)};
          for (uint32_t p = 0; p < peers; ++p) from.payload[p] = payloads[p].data();
          const device::Quantize<grid(), device::Peers<grid()>> reduce{how, from, {got.data(), count, log_of(block)}};
          Machine{peers}.run(reduce.blocks(), reduce);
        });
        CHECK(same(got, wanted), "grid ", g, " peers ", peers, " data ", int(data));
      }
    }
  }
}

// --- Wires whose header the host knows.

kernels::Header words_of(ConstBytes wire) {
  kernels::Header header;
  std::memcpy(&header, wire.data(), sizeof(header));
  return header;
}

TEST("device: f32, f16 and bf16, there and back, are the CPU's wires") {
  for (const auto format : {ValueFormat::f32, ValueFormat::f16, ValueFormat::bf16}) {
    for (const Data data : kAllData) {
      for (size_t count : {size_t(0), size_t(1), size_t(4099)}) {
        for (const bool fed : {false, true}) {
          if (kQuick && data != Data::special) continue;
          const uint64_t seed = 1 + (count + fed) % kSeeds;
          const std::string what = concat("format ", int(format), " data ", int(data), " count ", count, " fed ", fed);
          auto in = make(data, count, 1);
          auto residual = fed ? make(data, count, 2) : std::vector<float>(), wanted_residual = residual;
          const auto codec = codec::make_cast(format);
          std::vector<std::byte> wanted(codec->most_bytes(count)), got(wanted.size(), kUntouched);
          codec->encode(in, fed ? wanted_residual.data() : nullptr, {}, wanted);
          std::vector<float> into(count), wanted_into(count), sum(count, 0.5f), wanted_sum = sum;
          Machine machine{seed};
          device::with_cast(format, [&](auto constant) {
            using Stored = typename device::Written<constant()>::Stored;
            const device::Numbers<constant()> numbers{reinterpret_cast<Stored*>(got.data() + 32), count};
            const device::Array from{{in.data(), count}, {fed ? residual.data() : nullptr, residual.size()}};
            const device::Narrow<constant(), device::Array> narrow{from, numbers};
            machine.run(narrow.blocks(), narrow);
            const device::Widen<constant(), device::Into> widen{numbers, {into.data(), count}};
            machine.run(widen.blocks(), widen);
            const device::Widen<constant(), device::Add> add{numbers, {sum.data(), count}};
            machine.run(add.blocks(), add);
          });
          device::seal(machine, got.data(), got.size() - 32, device::Known{words_of(wanted)});
          codec::decode_into(wanted_into, wanted, "");
          codec::decode_add(wanted_sum, wanted, "");
          CHECK(same(got, wanted), what);
          CHECK(same(residual, wanted_residual), what);
          CHECK(same(into, wanted_into), what);
          CHECK(same(sum, wanted_sum), what);
        }
      }
    }
  }
}

TEST("device: headers are sealed over whole words or not, aligned or not") {
  std::mt19937 random(1);
  constexpr size_t words = kernels::Header::kWords;
  for (size_t begin : {size_t(0), size_t(1)}) {
    for (size_t count : {size_t(0), size_t(1), size_t(3), size_t(4), size_t(15), size_t(1027), size_t(39990)}) {
      for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
        const kernels::Header header{{1, 2, 3, 4, uint32_t(count), 0, 7, 99}},
            blank{{1, 2, 3, 4, uint32_t(count), 0, 7, 0}};
        std::vector<uint32_t> wire(begin + words + count / 4 + 1);
        for (uint32_t& word : wire) word = uint32_t(random());
        Machine machine{seed};
        auto* const at = reinterpret_cast<std::byte*>(wire.data() + begin);
        device::seal(machine, at, count, device::Known{header});
        const ConstBytes payload{at + words * 4, count};
        const uint32_t wanted = checksum(payload) + checksum(std::as_bytes(std::span(&blank, 1)));
        CHECK(wire[begin + 7] == wanted && wire[begin] == 1 && wire[begin + 6] == 7, "count ", count, " seed ", seed);
      }
    }
  }
}

TEST("device: what is wrong with a payload is found") {
  const size_t count = 5000;
  const auto codec = codec::make({.block = 32});
  std::vector<std::byte> wire(codec->most_bytes(count));
  codec->encode(make(Data::special, count, 1), nullptr, {}, wire);
  const ConstBytes payload = ConstBytes(wire).subspan(32);
  const size_t scales = (count + 31) / 32;
  const auto look = [&] {
    device::Found found;
    Machine machine{1};
    device::check(machine, {payload.data(), payload.size(), scales, nullptr}, &found);
    CHECK(found.sum + uint32_t(payload.size()) == checksum(payload), "");
    return found.faults;
  };
  CHECK(look() == 0, "an encoder's scales are refused");
  for (const uint32_t bits : {0x80000000u, 0x7f800000u, 0x7fc00001u, 0xffc00000u}) {
    const size_t at = 32 + bits % scales * 4;
    uint32_t before;
    std::memcpy(&before, &wire[at], 4);
    std::memcpy(&wire[at], &bits, 4);
    CHECK(look() == 1, "scale ", bits);
    std::memcpy(&wire[at], &before, 4);
  }
}

}  // namespace

int main(int argc, char** argv) {
  return check::run(argc, argv);
}
