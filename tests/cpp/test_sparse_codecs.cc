// TopK and RandomK as codecs: what is sent and what stays make up what was given, and ranks and instruction sets agree.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "check.h"
#include "codec/randomk.h"
#include "codec/sparse.h"
#include "codec/topk.h"
#include "kernels/checksum.h"
#include "kernels/simd.h"

using namespace pycoll;
using namespace pycoll::codec;

namespace {

const bool kQuick = [] {
  const char* quick = std::getenv("PYCOLL_TEST_QUICK");
  return quick && *quick == '1';
}();

const std::vector<ValueFormat> kFormats = {ValueFormat::f32, ValueFormat::f16, ValueFormat::bf16, ValueFormat::int8,
                                           ValueFormat::int4};

std::vector<std::unique_ptr<Codec>> codecs() {
  std::vector<std::unique_ptr<Codec>> all;
  for (const ValueFormat format : kFormats) {
    for (const bool exact : {false, true}) all.push_back(std::make_unique<TopK>(Amount{0.01, 0}, exact, format));
    all.push_back(std::make_unique<TopK>(Amount{0, 300}, true, format));
    all.push_back(std::make_unique<TopK>(Amount{1, 0}, false, format));
    all.push_back(std::make_unique<RandomK>(Amount{0.05, 0}, 7, format));
    all.push_back(std::make_unique<RandomK>(Amount{0, 300}, uint64_t(1) << 40, format));
    all.push_back(std::make_unique<RandomK>(Amount{1, 0}, 0, format));
  }
  return all;
}

std::vector<float> normal(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> out(count);
  for (float& x : out) x = normal(random);
  return out;
}

std::vector<std::byte> encoded(const Codec& codec, const std::vector<float>& in, float* residual, uint64_t step) {
  const size_t most = codec.most_bytes(in.size());
  std::vector<std::byte> wire(most + 1, std::byte(0x5a));
  const size_t bytes = codec.encode(in, residual, {.step = step}, {wire.data(), most});
  CHECK(bytes <= most && wire[most] == std::byte(0x5a), codec.describe(), ": ", bytes, " bytes, at most ", most);
  wire.resize(bytes);
  return wire;
}

}  // namespace

TEST("what is sent and what stays make up what was given, the same on every instruction set") {
  for (const auto& codec : codecs())
    for (const size_t count : {0, 1, 16, 400, 66000}) {
      const std::vector<float> in = normal(count, 1), before = normal(count, 2);
      std::vector<std::byte> first;
      for (const char* level : {"scalar", "avx2", "avx512"}) {
        try {
          kernels::select_simd(level);
        } catch (const InvalidArgument&) {
          continue;
        }
        const std::string what = concat(codec->describe(), ", ", count, " elements, ", level);
        std::vector<float> residual = before, sent(count, NAN), added(count, 0.0f);
        const std::vector<std::byte> wire = encoded(*codec, in, residual.data(), 5);
        CHECK(first.empty() || wire == first, what, ": other bytes");
        first = wire;
        decode_into(sent, wire, "here");
        decode_add(added, wire, "here");
        const auto format = ValueFormat(codec::check(wire, count, "here").format);
        for (size_t i = 0; i < count; ++i) {
          const float total = in[i] + before[i];
          CHECK(added[i] == sent[i], what, ": at ", i);
          CHECK(sent[i] != 0 || residual[i] == total, what, ": at ", i, " nothing was sent, ", residual[i], " stays");
          CHECK(residual[i] == total - sent[i], what, ": at ", i, " ", residual[i], " stays of ", total);
          CHECK(format != ValueFormat::f32 || residual[i] == 0 || sent[i] == 0, what, ": at ", i);
        }
        // Without a residual, in is what it is of.
        std::vector<float> whole(count);
        std::transform(in.begin(), in.end(), before.begin(), whole.begin(), std::plus<>());
        CHECK(encoded(*codec, whole, nullptr, 5) == wire, what, ": in + residual is not encoded like their sum");
      }
    }
}

TEST("random indices: ascending, one in each stratum, new ones at each step, all equally likely") {
  for (const size_t count : {size_t(1), size_t(10), size_t(1000), size_t(4294967295)})
    for (const size_t k : {size_t(0), size_t(1), std::min<size_t>(count, 7), std::min<size_t>(count, 1000)}) {
      std::vector<uint32_t> index(k), again(k), next(k);
      random_indices(3, 9, count, k, index.data());
      random_indices(3, 9, count, k, again.data());
      random_indices(3, 10, count, k, next.data());
      CHECK(index == again, count, " ", k);
      for (size_t j = 0; j < k; ++j)
        CHECK(index[j] >= j * count / k && index[j] < (j + 1) * count / k, "entry ", j, " is ", index[j]);
      CHECK(k == 0 || k == count || index != next, count, " elements, k ", k, ": the same at the next step");
    }
  constexpr size_t count = 103, k = 10, steps = 20000;
  std::vector<size_t> chosen(count);
  for (uint64_t step = 0; step < steps; ++step) {
    uint32_t index[k];
    random_indices(1, step, count, k, index);
    for (const uint32_t i : index) ++chosen[i];
  }
  for (size_t i = 0; i < count; ++i) {  // strata have 10 or 11 elements: 1942 in the mean, deviation 43
    const double mean = double(steps) * k / count;
    CHECK(chosen[i] > mean * 0.8 && chosen[i] < mean * 1.2, "element ", i, ": ", chosen[i], " times, not ", mean);
  }
}

TEST("a wire with a bit changed is refused, and so is one of another codec or length") {
  for (const auto& codec : codecs()) {
    std::vector<float> out(3000);
    const std::vector<std::byte> wire = encoded(*codec, normal(3000, 3), nullptr, 1);
    const auto refused = [&](std::vector<std::byte> mutated, size_t count) {
      std::vector<float> to(count, 1.0f);
      try {
        decode_into(to, mutated, "from rank 3");
      } catch (const TransportError& error) {
        CHECK(std::string(error.what()).find("from rank 3") != std::string::npos, error.what());
        CHECK(std::count(to.begin(), to.end(), 1.0f) == std::ptrdiff_t(count), "written before it was refused");
        return true;
      }
      return false;
    };
    CHECK(!refused(wire, 3000), codec->describe());
    CHECK(refused(wire, 2999), codec->describe());
    std::mt19937 random(1);
    for (int i = 0; i < 300; ++i) {
      std::vector<std::byte> mutated = wire;
      mutated[random() % wire.size()] ^= std::byte(1 << random() % 8);
      CHECK(refused(mutated, 3000), codec->describe(), " ", i);
      mutated = wire;
      mutated.resize(random() % wire.size());
      CHECK(refused(mutated, 3000), codec->describe(), " of ", mutated.size(), " bytes");
    }
  }
}

// As above, but with a checksum that agrees: what the decoders themselves look at.
TEST("mutated payloads with the right checksum are refused or decoded, never more") {
  const size_t rounds = kQuick ? 10000 : 200000;
  std::mt19937 random(4);
  std::vector<std::vector<std::byte>> seeds;
  for (const auto& codec : codecs())
    if (codec->most_bytes(500) < 1000) seeds.push_back(encoded(*codec, normal(500, 3), nullptr, 1));
  size_t refused = 0;
  for (size_t round = 0; round < rounds; ++round) {
    std::vector<std::byte> wire = seeds[random() % seeds.size()];
    for (uint32_t times = 1 + random() % 3; times > 0; --times)
      wire[5 + random() % (wire.size() - 5)] = std::byte(random());
    WireHeader header;
    std::memcpy(&header, wire.data(), sizeof(header));
    header.count = 500;
    header.bytes = wire.size() - sizeof(header);
    seal(wire, header, kernels::checksum(payload_of(header, wire)));
    std::vector<float> out(500);
    try {
      decode_into(out, wire, "fuzz");
      decode_add(out, wire, "fuzz");
    } catch (const TransportError&) {
      ++refused;
    }
  }
  CHECK(refused > rounds / 20 && refused < rounds, refused, " refused of ", rounds);
}

TEST("parameters that mean nothing are refused; descriptions tell codecs apart") {
  const auto refused = [](const auto& make) {
    try {
      make();
    } catch (const InvalidArgument&) {
      return true;
    }
    return false;
  };
  for (const Amount amount : {Amount{0, 0}, Amount{1.5, 0}, Amount{NAN, 0}, Amount{-1, 0}, Amount{0.1, 5}})
    CHECK(refused([&] { TopK(amount, true, ValueFormat::f32); }) && refused([&] { RandomK(amount, 0); }),
          amount.describe());
  CHECK(refused([] { TopK({0.1, 0}, true, ValueFormat::e4m3); }), "");
  CHECK(refused([] { RandomK({0.1, 0}, 0, ValueFormat::bit); }) && !refused([] { RandomK({0, 1}, 0); }), "");
  std::vector<std::string> descriptions;
  for (const auto& codec : codecs()) descriptions.push_back(codec->describe());
  std::sort(descriptions.begin(), descriptions.end());
  CHECK(std::adjacent_find(descriptions.begin(), descriptions.end()) == descriptions.end(), "");
  const TopK tenth({0.1, 0}, false, ValueFormat::f32);
  CHECK(tenth.describe() == "topk ratio 0.1 f32", tenth.describe());
}

int main(int argc, char** argv) {
  return check::run(argc, argv);
}
