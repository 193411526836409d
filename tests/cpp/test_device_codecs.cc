// The bodies of the CUDA kernels, on fibers, beside the CPU kernels: the same bytes under every order of lanes.
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "check.h"
#include "codec/sparse.h"
#include "kernels/checksum.h"
#include "kernels/device/checksum_body.h"
#include "kernels/device/fibers.h"
#include "kernels/device/quantize_body.h"
#include "kernels/device/select.h"
#include "kernels/device/sparse_body.h"

using namespace pycoll;
using namespace pycoll::kernels;
namespace device = pycoll::kernels::device;

namespace {

const bool kQuick = std::getenv("PYCOLL_TEST_QUICK") != nullptr;
const uint64_t kSeeds = kQuick ? 1 : 3;
constexpr std::byte kUntouched{0xa5};
constexpr float kInf = std::numeric_limits<float>::infinity();

// What select_exactly runs on.
struct Machine {
  uint64_t seed;
  uint32_t fill() const { return 5; }
  void zero(std::byte* memory, size_t bytes) { std::memset(memory, 0, bytes); }
  template <class Body>
  void run(uint64_t blocks, Body body) {
    device::run_on_fibers(uint32_t(blocks), seed, [&](device::fibers::Thread& on) { body(on); });
  }
};

enum class Data { normal, wide, ties, zeros, special, one_hot, denormal };
constexpr Data kAllData[] = {Data::normal,  Data::wide,    Data::ties,    Data::zeros,
                             Data::special, Data::one_hot, Data::denormal};

std::vector<float> make(Data data, size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(count);
  for (size_t i = 0; i < count; ++i) {
    switch (data) {
      case Data::normal: x[i] = normal(random); break;
      case Data::wide: x[i] = normal(random) * std::ldexp(1.0f, int(random() % 250) - 125); break;
      case Data::ties: x[i] = float(int(random() % 7) - 3); break;
      case Data::zeros: x[i] = random() % 2 ? 0.0f : -0.0f; break;
      case Data::special: x[i] = normal(random); break;
      case Data::one_hot: x[i] = i == count / 2 ? -3 : 0; break;
      case Data::denormal: x[i] = normal(random) * 0x1p-140f; break;
    }
  }
  if (data == Data::special && count > 2) {
    x[count / 2] = std::nanf("");
    x[count - 1] = -kInf;
    x[0] = std::numeric_limits<float>::max();
  }
  return x;
}

template <class T>
bool same(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

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
    const device::Dequantize<grid()> decode{payload, {into.data(), count}, false};
    machine.run(decode.blocks(), decode);
    const device::Dequantize<grid()> add{payload, {sum.data(), count}, true};
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

TEST("device: headers are sealed over whole words or not, aligned or not") {
  std::mt19937 random(1);
  constexpr size_t words = device::Header::kWords;
  const device::Header header{{1, 2, 3, 4, 5, 6, 7, 99}}, blank{{1, 2, 3, 4, 5, 6, 7, 0}};
  for (size_t begin : {size_t(0), size_t(1)}) {
    for (size_t count : {size_t(0), size_t(1), size_t(3), size_t(4), size_t(15), size_t(1027), size_t(39990)}) {
      for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
        std::vector<uint32_t> wire(begin + words + count / 4 + 1);
        for (uint32_t& word : wire) word = uint32_t(random());
        wire[begin] = wire[begin + 1] = 0;
        Machine{seed}.run(3, device::Seal{wire.data() + begin, count, header});
        const ConstBytes payload = std::as_bytes(std::span(wire)).subspan((begin + words) * 4, count);
        const uint32_t wanted = checksum(payload) + checksum(std::as_bytes(std::span(&blank, 1)));
        CHECK(wire[begin + 7] == wanted && wire[begin] == 1 && wire[begin + 6] == 7, "count ", count, " seed ", seed);
      }
    }
  }
}

// --- Top-k.

struct Topk {
  std::vector<float> residual;  // empty: none
  device::TopkKept kept{};
  size_t floor_used = 0;

  // One step on `in`, beside select_topk's.
  void step(const std::vector<float>& in, size_t k, uint64_t seed, const std::string& what) {
    const size_t count = in.size(), most = std::min(k, count);
    std::vector<uint32_t> index(most), wanted_index(most);
    std::vector<float> value(most), wanted_value(most), wanted_residual = residual, copy = in;
    std::vector<uint64_t> scratch(device::TopkLayout(count, most).bytes / 8 + 1);
    Machine machine{seed};
    device::select_exactly(machine, {copy.data(), count}, residual.empty() ? nullptr : residual.data(), k, &kept,
                           {index.data(), value.data()}, reinterpret_cast<std::byte*>(scratch.data()));
    TopkState state;
    Scratch temporary;
    const size_t entries = select_topk(in.data(), residual.empty() ? nullptr : wanted_residual.data(), count, k, state,
                                       {wanted_index.data(), wanted_value.data()}, temporary);
    const auto* work = reinterpret_cast<const device::TopkWork*>(scratch.data());
    from_array = work->from_array, candidates = work->candidates;
    CHECK(entries == most, what);
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

// --- Sparse payloads.

TEST("device: sparse payloads, there and back") {
  const size_t count = 3 * codec::kSparseBlock + 77;
  for (const auto format : {codec::ValueFormat::f32, codec::ValueFormat::f16, codec::ValueFormat::bf16}) {
    for (size_t entries : {size_t(0), size_t(1), size_t(1000)}) {
      for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
        const std::string what = concat("format ", int(format), " entries ", entries, " seed ", seed);
        std::vector<uint32_t> index(entries);
        for (size_t i = 0; i < entries; ++i)  // none in the third block, and the last element
          index[i] = uint32_t(i + 1 == entries ? count - 1 : i % 2 ? 70000 + 50 * i : i * 60);
        std::sort(index.begin(), index.end());
        auto value = make(Data::wide, entries, uint32_t(seed)), lost = value;
        std::vector<std::byte> wire(codec::sparse_most_bytes(count, entries, format));
        const size_t bytes =
            codec::sparse_encode(index.data(), value.data(), entries, 0, count, format, codec::CodecId::topk, wire);
        codec::WireHeader header;
        std::memcpy(&header, wire.data(), sizeof(header));
        const ConstBytes wanted = ConstBytes(wire).subspan(sizeof(header), bytes - sizeof(header));
        std::vector<std::byte> got(wanted.size(), kUntouched);
        const DType type = format == codec::ValueFormat::f32   ? DType::f32
                           : format == codec::ValueFormat::f16 ? DType::f16
                                                               : DType::bf16;
        const device::SparsePayload payload{got.data(), count, uint32_t(entries), type};
        std::vector<float> residual(count), sum(count, 0.5f), wanted_sum = sum, into(count), wanted_into(count);
        Machine machine{seed};
        machine.run(2, device::PackEntries{{index.data(), value.data()}, residual.data(), payload});
        CHECK(std::memcmp(got.data(), wanted.data(), got.size()) == 0, what);
        machine.run(device::blocks_of(count), device::Unpack{payload, into.data(), false});
        machine.run(device::blocks_of(count), device::Unpack{payload, sum.data(), true});
        codec::sparse_into(wanted_into, header, wanted, "");
        codec::sparse_add(wanted_sum, header, wanted, "");
        CHECK(same(into, wanted_into) && same(sum, wanted_sum), what);
        if (type != DType::f32) codec::sparse_lost(lost.data(), entries, wire);
        for (size_t i = 0; i < entries && type != DType::f32; ++i)
          CHECK(residual[index[i]] == 0.0f + lost[i], what, " entry ", i);
      }
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  return check::run(argc, argv);
}
