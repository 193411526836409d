// codec_cuda.h and the host side of the CUDA kernels, with fibers in place of a device: the wires of the CPU's codecs,
// and the CPU's words about wires that are broken.
#include <cstddef>
#include <cstring>
#include <memory>
#include <vector>

#include "check.h"
#include "codec/blocks.h"
#include "codec/codec_cuda.h"
#include "codec/randomk.h"
#include "codec/shared_scale.h"
#include "codec/topk.h"
#include "device.h"
#include "kernels/checksum.h"

using namespace pycoll;
using namespace device_test;
using codec::ValueFormat;

namespace {

std::vector<std::unique_ptr<codec::Codec>> codecs() {
  std::vector<std::unique_ptr<codec::Codec>> all;
  for (int format = 0; format < codec::kValueFormats; ++format)
    all.push_back(codec::make({.format = ValueFormat(format), .block = 64}));
  all.push_back(codec::make({.block = 128, .stochastic = true, .seed = 3}));
  for (const bool exact : {true, false})
    for (const double ratio : {0.05, 0.9})
      all.push_back(std::make_unique<codec::TopK>(codec::Amount{ratio}, exact, ValueFormat::f32));
  all.push_back(std::make_unique<codec::TopK>(codec::Amount{0.05}, false, ValueFormat::int8));
  all.push_back(std::make_unique<codec::RandomK>(codec::Amount{0.05}, 9));
  all.push_back(std::make_unique<codec::RandomK>(codec::Amount{0.99}, 9));
  return all;
}

void* stream(uint64_t seed) {
  return reinterpret_cast<void*>(seed);
}

TEST("device: every codec, from its parameters to its wire and back") {
  for (const auto& codec : codecs()) {
    for (size_t count : {size_t(0), size_t(1), size_t(700), size_t(9001)}) {
      for (const bool fed : {false, true}) {
        if (kQuick && count > 700) continue;
        const std::string what = concat(codec->describe(), " of ", count, " fed ", fed);
        const auto in = make(Data::normal, count, 1);
        auto residual = fed ? make(Data::wide, count, 2) : std::vector<float>(), wanted_residual = residual;
        const codec::Moment moment{.step = 5, .stream = 2, .index = 3};
        std::vector<std::byte> wanted(codec->most_bytes(count)), got = wanted;
        wanted.resize(codec->encode(in, fed ? wanted_residual.data() : nullptr, moment, wanted));
        const uint64_t seed = 1 + count % kSeeds;
        const auto bytes = codec::cuda::encode(*codec, in, fed ? residual.data() : nullptr, moment, got, stream(seed));
        CHECK(bytes.value_or(sizeof(codec::WireHeader) + codec::cuda::header_of(got, stream(seed)).bytes) ==
                  wanted.size(),
              what);
        got.resize(wanted.size());
        CHECK(same(got, wanted), what);
        CHECK(same(residual, wanted_residual), what);
        CHECK(codec::cuda::check(got, stream(seed)) == count, what);
        std::vector<float> into(count, 9), wanted_into(count), sum(count, 0.5f), wanted_sum = sum;
        codec::decode_into(wanted_into, wanted, "");
        codec::decode_add(wanted_sum, wanted, "");
        codec::cuda::decode_into(into, got, stream(seed));
        codec::cuda::decode_add(sum, got, stream(seed));
        CHECK(same(into, wanted_into), what);
        CHECK(same(sum, wanted_sum), what);
      }
    }
  }
}

std::string complaint(const std::function<void()>& decode) {
  try {
    decode();
  } catch (const TransportError& error) {
    return error.what();
  }
  return "none";
}

TEST("device: broken wires are refused in the CPU's words, before anything is written") {
  const size_t count = 900;
  for (const auto& codec : codecs()) {
    std::vector<std::byte> wire(codec->most_bytes(count));
    wire.resize(codec->encode(make(Data::normal, count, 1), nullptr, {}, wire));
    const auto look = [&](const std::vector<std::byte>& broken, const std::string& what) {
      std::vector<float> nowhere(count), out(count, 7);
      const auto words = complaint([&] { codec::decode_into(nowhere, broken, "given to decode"); });
      CHECK(words != "none", what);
      CHECK(complaint([&] { codec::cuda::decode_into(out, broken, stream(1)); }) == words, what, ": ", words);
      CHECK(complaint([&] { codec::cuda::decode_add(out, broken, stream(1)); }) == words, what, ": ", words);
      CHECK(complaint([&] { codec::cuda::check(broken, stream(1)); }) != "none", what);
      CHECK(same(out, std::vector<float>(count, 7)), what, ": something was written");
    };
    for (size_t at : {size_t(0), size_t(4), size_t(5), size_t(6), size_t(7), size_t(8), size_t(15), size_t(16),
                      size_t(23), size_t(24), size_t(28), size_t(33), wire.size() - 1}) {
      auto broken = wire;
      broken[at] ^= std::byte{0x5a};
      look(broken, concat(codec->describe(), " byte ", at));
    }
    for (size_t bytes : {size_t(0), size_t(31), size_t(32), wire.size() - 1})
      look({wire.begin(), wire.begin() + ptrdiff_t(bytes)}, concat(codec->describe(), " cut to ", bytes));
  }
}

TEST("device: wires whose checksum is right and whose payload is not are refused") {
  const size_t count = 900;
  const auto spoilt = [&](const codec::Codec& codec, size_t at, uint32_t value) {
    std::vector<std::byte> wire(codec.most_bytes(count));
    codec.encode(make(Data::normal, count, 1), nullptr, {}, wire);
    std::memcpy(&wire[at], &value, sizeof(value));
    codec::WireHeader header;
    std::memcpy(&header, wire.data(), sizeof(header));
    codec::seal(wire, header, kernels::checksum(codec::payload_of(header, wire)));
    std::vector<float> out(count);
    const auto words = complaint([&] { codec::decode_into(out, wire, "given to decode"); });
    CHECK(complaint([&] { codec::cuda::decode_into(out, wire, stream(1)); }) == words, words);
    return words;
  };
  const auto says = [](const std::string& words, const char* part) { return words.find(part) != std::string::npos; };
  const auto scaled = codec::make({.block = 64});
  CHECK(says(spoilt(*scaled, 36, 0xbf800000), "scale of block 1"), "");
  const codec::TopK sparse({.k = 40}, true, ValueFormat::f32);
  CHECK(says(spoilt(sparse, 32, 39), "blocks have 39 entries"), "");
  CHECK(says(spoilt(sparse, 32 + 16 + 160, 0xffffffff), "do not ascend"), "");
  CHECK(says(spoilt(sparse, sparse.most_bytes(count) - 4, 0xfffffffe), "of 900 elements"), "");
  CHECK(says(spoilt(sparse, offsetof(codec::WireHeader, parameter), 39), "wanted 250 for 39 entries"), "");
  CHECK(says(spoilt(sparse, offsetof(codec::WireHeader, version), 0x00050601), "values in format e4m3"), "");
}

TEST("device: the sum of wires") {
  const size_t count = 5000;
  const auto codec = codec::make({.format = ValueFormat::int4, .block = 32});
  std::vector<std::vector<std::byte>> wires(3, std::vector<std::byte>(codec->most_bytes(count)));
  std::vector<ConstBytes> parts;
  std::vector<float> sum(count);
  for (uint32_t peer = 0; peer < 3; ++peer) {
    codec->encode(make(Data::normal, count, peer), nullptr, {}, wires[peer]);
    (peer ? codec::decode_add : codec::decode_into)(sum, wires[peer], "");
    parts.push_back(wires[peer]);
  }
  std::vector<std::byte> wanted(codec->most_bytes(count)), got = wanted;
  codec->encode(sum, nullptr, {}, wanted);
  CHECK(codec::cuda::sum(*codec, parts, count, got, stream(2)) == wanted.size(), "");
  CHECK(same(got, wanted), "");
}

TEST("device: what has no kernels is refused") {
  const codec::SharedScale shared(16, 256);
  std::vector<float> x(10);
  std::vector<std::byte> wire(1000);
  bool refused = false;
  try {
    codec::cuda::encode(shared, x, nullptr, {}, wire, stream(1));
  } catch (const InvalidArgument&) {
    refused = true;
  }
  CHECK(refused, "");
}

}  // namespace

int main(int argc, char** argv) {
  return check::run(argc, argv);
}
