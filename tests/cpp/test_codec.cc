// The codecs that write every element: what they promise of residuals, and that decoders refuse whatever an encoder did
// not write. The arithmetic is test_quantize.cc's subject.
#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "codec/blocks.h"
#include "codec/randomk.h"
#include "codec/topk.h"
#include "codec/values.h"
#include "kernels/checksum.h"

using namespace pycoll;
using namespace pycoll::codec;

namespace {

using Array = std::vector<float>;
using Wire = std::vector<std::byte>;

const bool kQuick = std::getenv("PYCOLL_TEST_QUICK") != nullptr;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

Array gaussian(size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> draw;
  Array x(count);
  for (float& v : x) v = draw(random);
  return x;
}

// One of each kind that has blocks or none, two of those that round stochastically.
std::vector<std::unique_ptr<Codec>> dense() {
  std::vector<std::unique_ptr<Codec>> all;
  for (int f = 0; f < kValueFormats; ++f) all.push_back(make({.format = ValueFormat(f), .block = 64}));
  all.push_back(make({.format = ValueFormat::int8, .block = 256, .stochastic = true, .seed = 5}));
  all.push_back(make({.format = ValueFormat::int4, .block = 32, .stochastic = true, .seed = 5}));
  return all;
}

Wire encoded(const Codec& codec, const Array& x, float* residual) {
  Wire wire(codec.most_bytes(x.size()));
  wire.resize(codec.encode(x, residual, {.step = 3, .stream = 1, .index = 10}, wire));
  return wire;
}

std::string refusal(const Wire& wire, size_t count) {
  Array out(count);
  try {
    decode_into(out, wire, "from rank 3");
  } catch (const TransportError& error) {
    return error.what();
  }
  return "";
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

uint32_t bits(float x) {
  return std::bit_cast<uint32_t>(x);
}

// The header of a wire changed, and its check made to fit.
template <class Change>
Wire forged(Wire wire, Change change) {
  WireHeader header;
  std::memcpy(&header, wire.data(), sizeof(header));
  change(header);
  const size_t there = wire.size() - sizeof(header);
  seal(wire, header, kernels::checksum({wire.data() + sizeof(header), std::min<size_t>(header.bytes, there)}));
  return wire;
}

}  // namespace

TEST("codecs: decoded and residual together are what went in; adding is decoding and adding") {
  for (const auto& codec : dense()) {
    const bool exact = codec->id() == CodecId::identity || codec->id() == CodecId::cast;
    for (const size_t count : {0, 1, 31, 63, 64, 65, 255, 256, 257, 5000}) {
      const Array x = gaussian(count, 1), before = gaussian(count, 2), base = gaussian(count, 3);
      Array residual = before, out(count), acc = base;
      const Wire wire = encoded(*codec, x, residual.data());
      CHECK(wire.size() == codec->most_bytes(count), codec->describe());
      CHECK(wire == encoded(*codec, x, Array(before).data()), codec->describe(), ": other bytes the second time");
      decode_into(out, wire, "");
      decode_add(acc, wire, "");
      for (size_t i = 0; i < count; ++i) {
        const float sum = x[i] + before[i];
        CHECK(bits(residual[i]) == bits(sum - out[i]), codec->describe(), " residual ", i);
        if (exact) CHECK(double(out[i]) + residual[i] == double(sum), codec->describe(), " ", i);
        CHECK(bits(acc[i]) == bits(base[i] + out[i]), codec->describe(), " sum ", i);
      }
    }
  }
}

TEST("codecs: a NaN or an infinity is seen after decoding, and is not fed back") {
  for (const auto& codec : dense()) {
    for (const float bad : {kNan, -kNan, std::numeric_limits<float>::infinity()}) {
      Array x = gaussian(300, 4), residual(300), out(300);
      x[70] = bad;
      decode_into(out, encoded(*codec, x, residual.data()), "");
      CHECK(!std::isfinite(out[70]), codec->describe());
      for (size_t i = 0; i < 300; ++i) CHECK(std::isfinite(residual[i]), codec->describe(), " ", i);
    }
  }
}

TEST("codecs: their descriptions differ where their parameters do; what cannot be is refused") {
  CHECK(make({})->describe() == "int8 block 256");
  CHECK(make({.format = ValueFormat::e4m3, .block = 128})->describe() == "fp8 e4m3 block 128");
  CHECK(make({.format = ValueFormat::bf16})->describe() == "cast bf16");
  CHECK(make({.stochastic = true, .seed = 9})->describe() == "int8 block 256 stochastic seed 9");
  const auto refused = [](const Blocks& blocks) {
    try {
      make(blocks);
      return false;
    } catch (const InvalidArgument&) {
      return true;
    }
  };
  for (const uint32_t block : {0, 1, 16, 100, 8192}) CHECK(refused({.block = block}), block);
  CHECK(refused({.format = ValueFormat::bit, .stochastic = true}) && refused({.format = ValueFormat(99)}));
}

TEST("check: says what is wrong") {
  const auto codec = make({.block = 64});
  const Wire good = encoded(*codec, gaussian(200, 5), nullptr);
  CHECK(refusal(good, 200).empty());
  Wire longer = good;
  longer.resize(good.size() + 7, std::byte{1});
  CHECK(refusal(longer, 200).empty(), "what lies behind is not looked at");

  const auto says = [](const Wire& wire, size_t count, const std::string& part) {
    const std::string got = refusal(wire, count);
    CHECK(contains(got, "payload from rank 3: ") && contains(got, part), "\"", got, "\" without \"", part, "\"");
  };
  says({}, 200, "cut off in the header, 0 of 32 bytes");
  says(Wire(good.begin(), good.begin() + 31), 200, "31 of 32 bytes");
  says(Wire(good.begin(), good.end() - 1), 200, "cut off, 215 of 216 bytes");
  says(good, 199, "holds 200 elements, wanted 199");
  says(forged(good, [](WireHeader& h) { h.magic = 1; }), 200, "magic is 1");
  says(forged(good, [](WireHeader& h) { h.version = 2; }), 200, "version 2, this build reads 1");
  says(forged(good, [](WireHeader& h) { h.codec = 77; }), 200, "unknown codec 77");
  says(forged(good, [](WireHeader& h) { h.format = 78; }), 200, "unknown format 78");
  says(forged(good, [](WireHeader& h) { h.codec = uint8_t(CodecId::cast); }), 200, "does not write format int8");
  says(forged(good, [](WireHeader& h) { h.reserved = 4; }), 200, "reserved byte is 4");
  says(forged(good, [](WireHeader& h) { h.parameter = 63; }), 200, "blocks of 63");
  says(forged(good, [](WireHeader& h) { h.parameter = 32; }), 200, "of 216 bytes, wanted 232");
  says(forged(good, [](WireHeader& h) { h.bytes = ~uint64_t(0); }), 200, "wanted 216");
  for (size_t at = 0; at < good.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      Wire flipped = good;
      flipped[at] ^= std::byte(1 << bit);
      CHECK(!refusal(flipped, 200).empty(), "bit ", bit, " of byte ", at, " changed unseen");
    }
  }
  Wire infinite = good;
  const float infinity = std::numeric_limits<float>::infinity();
  std::memcpy(infinite.data() + sizeof(WireHeader) + 4, &infinity, 4);
  says(forged(infinite, [](WireHeader&) {}), 200, "scale of block 1 is inf");
}

// Wires of every codec, mutated; half of the time with a check that fits, so that what is behind it is reached.
TEST("fuzz: a decoder refuses with a reason or decodes, and touches nothing else") {
  auto codecs = dense();
  codecs.push_back(make({.format = ValueFormat::int8, .block = 4096}));
  for (int f = 0; f < kValueFormats; ++f) {
    if (!is_value_format(ValueFormat(f))) continue;
    codecs.push_back(std::make_unique<TopK>(Amount{0.05, 0}, true, ValueFormat(f)));
    codecs.push_back(std::make_unique<RandomK>(Amount{0.05, 0}, 6, ValueFormat(f)));
  }
  std::mt19937 random(2026);
  const auto below = [&random](size_t n) { return n ? random() % n : 0; };
  constexpr float guard = 12345;
  const size_t wires = kQuick ? 100 : 2600, mutations = 400;
  size_t refused = 0, decoded = 0;
  for (size_t w = 0; w < wires; ++w) {
    const Codec& codec = *codecs[w % codecs.size()];
    const size_t count = w % 7 == 0 ? below(3) : below(400);
    const Wire wire = encoded(codec, gaussian(count, unsigned(w)), nullptr);
    Array out(count + 8, guard);
    for (size_t m = 0; m < mutations; ++m) {
      Wire mutated = wire;
      for (size_t changes = 1 + below(3); changes > 0; --changes) {
        switch (below(5)) {
          case 0: mutated.resize(below(mutated.size() + 1)); break;
          case 1: mutated.insert(mutated.end(), below(40), std::byte(random())); break;
          case 2:
            if (!mutated.empty()) mutated[below(mutated.size())] = std::byte(random());
            break;
          case 3:
            if (!mutated.empty()) mutated[below(std::min(mutated.size(), sizeof(WireHeader)))] = std::byte(below(16));
            break;
          default:
            if (!mutated.empty()) mutated[below(mutated.size())] ^= std::byte(1 << below(8));
        }
      }
      if (m % 2 && mutated.size() >= sizeof(WireHeader)) mutated = forged(std::move(mutated), [](WireHeader&) {});
      mutated.shrink_to_fit();  // so that a sanitizer sees the first byte behind it
      const std::span<float> to(out.data(), m % 16 ? count : below(count + 1));
      try {
        if (m % 4 < 2)
          decode_into(to, mutated, "from fuzz");
        else
          decode_add(to, mutated, "from fuzz");
        ++decoded;
      } catch (const TransportError& error) {
        CHECK(contains(error.what(), "from fuzz") && std::strlen(error.what()) > 25, error.what());
        ++refused;
      }
      for (size_t i = count; i < out.size(); ++i) CHECK(out[i] == guard, codec.describe(), " wrote beyond ", count);
    }
  }
  CHECK(refused + decoded == wires * mutations && refused > decoded && decoded > wires, refused, " refused, ", decoded,
        " decoded");
  std::printf("        %zu inputs, %zu refused, %zu decoded\n", wires * mutations, refused, decoded);
}

int main(int argc, char** argv) {
  return check::run(argc, argv);
}
