// Every grid, block, rounding and instruction set of the quantizers against the contract written the slow way, bit for
// bit; and what the contract promises: bounds of the error, no bias, the ends of the range of float.
#include <array>
#include <random>
#include <string>

#include "check.h"
#include "kernels/checksum.h"
#include "kernels/simd.h"
#include "levels.h"
#include "quantize_oracle.h"

using namespace oracle;

namespace {

constexpr Grid kAll[] = {Grid::int8, Grid::int4, Grid::e4m3, Grid::e5m2, Grid::bit};
constexpr const char* kNames[] = {"int8", "int4", "e4m3", "e5m2", "bit"};
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// A heap block of its own for every array, so that a sanitizer sees each byte beyond its end.
template <class T>
std::vector<T> exactly(const std::vector<T>& v) {
  return {v.begin(), v.end()};
}

bool same(const Array& a, const Array& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), 4 * a.size()) == 0);
}

// Encodes and decodes on every instruction set, and compares all that comes out with the oracle.
void agrees(const Quantizer& how, const Array& in, const Array& residual, const std::string& what) {
  const Encoded want = encode(how, in, residual);
  const Array decoded = decode(how.grid, how.block, want.payload, in.size());
  for (const auto level : available()) {
    kernels::select_simd(level);
    const auto where = concat(what, " ", kNames[int(how.grid)], " block ", how.block, " count ", in.size(), " ", level);
    Memory payload(kernels::quantized_bytes(how.grid, how.block, in.size()), std::byte{0xee});
    Array left = exactly(residual);
    kernels::quantize(how, in.data(), left.empty() ? nullptr : left.data(), in.size(), payload.data());
    CHECK(payload.size() == want.payload.size(), where);
    for (size_t i = 0; i < payload.size(); ++i)
      CHECK(payload[i] == want.payload[i], where, ": byte ", i, " is ", int(payload[i]), ", wanted ",
            int(want.payload[i]));
    for (size_t i = 0; i < left.size(); ++i)
      CHECK(std::bit_cast<uint32_t>(left[i]) == std::bit_cast<uint32_t>(want.residual[i]), where, ": residual ", i,
            " is ", left[i], ", wanted ", want.residual[i]);
    Array out(in.size(), 7.0f), acc = exactly(in), sum = in;
    kernels::dequantize_into(how.grid, how.block, out.data(), payload.data(), out.size());
    CHECK(same(out, decoded), where, ": decoded");
    kernels::dequantize_add(how.grid, how.block, acc.data(), payload.data(), acc.size());
    for (size_t i = 0; i < sum.size(); ++i) {
      sum[i] += decoded[i];
      if (std::isnan(sum[i])) sum[i] = kNan;
    }
    CHECK(same(acc, sum), where, ": added");
  }
}

Array gaussian(size_t count, unsigned seed, float sigma = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<float> draw(0, sigma);
  Array x(count);
  for (float& v : x) v = draw(random);
  return x;
}

// Any bits; what is not finite only where asked for.
Array any(size_t count, unsigned seed, bool finite) {
  std::mt19937 random(seed);
  Array x(count);
  for (float& v : x) {
    do v = std::bit_cast<float>(uint32_t(random()));
    while (finite && !std::isfinite(v));
  }
  return x;
}

std::vector<size_t> counts_of(size_t block) {
  return {0, 1, 2, 3, 31, 33, block - 1, block, block + 1, 2 * block + 17, 3 * block};
}

}  // namespace

TEST("quantize: every grid, block and tail on every instruction set") {
  for (const Grid grid : kAll) {
    for (const uint32_t block : {32, 128, 256, 4096}) {
      for (const size_t count : counts_of(block)) {
        for (const bool stochastic : {false, true}) {
          if (stochastic && grid > Grid::int4) continue;
          const Quantizer how = {grid, block, stochastic, 0x123456789abcdef0, 77, 5 + count, 3};
          agrees(how, gaussian(count, 1), {}, "plain");
          agrees(how, gaussian(count, 2), gaussian(count, 3, 0.1f), "fed");
        }
      }
    }
  }
}

TEST("quantize: any bits, and what a block of each kind does") {
  const float tiny = 1e-45f, huge = std::numeric_limits<float>::max();
  const std::vector<std::pair<const char*, Array>> blocks = {
      {"zeros", {0, -0.0f}},
      {"equal", {3.3f}},
      {"NaN", {1, 2, kNan, 4}},
      {"negative NaN with payload", {1, std::bit_cast<float>(0xffc12345), 3}},
      {"infinity", {1, kInfinity, 0}},
      {"infinities", {-kInfinity, kInfinity}},
      {"least denormal", {tiny, -tiny, 0}},
      {"denormals", {1e-39f, -3e-40f, tiny, 1.1754942e-38f}},
      {"about the least scale", {127 * 0x1p-126f, 0x1p-126f, -126.5f * 0x1p-126f, tiny, 1.5f * 0x1p-126f}},
      {"largest", {huge, -huge, huge / 2, 1, std::nextafter(huge, 0.0f)}},
      {"a half code", {127, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f, 126.5f, -126.5f}},
      {"sevenths", {7, 0.5f, 1.5f, -2.5f, 6.5f, -6.5f, 5.5f}},
      {"fp8 ties", {448, 17, 19, 21, 0.001953125f, 0.0009765625f, 0.0029296875f, 432, 440, 424, -17, 1e-9f}},
      {"fp8 ties", {57344, 4.5f, 5.5f, 6.5f, 53248, 49152, 0x1p-17f, 3 * 0x1p-17f, -0x1p-16f, 1e-9f}},
  };
  for (const Grid grid : kAll) {
    for (const bool stochastic : {false, true}) {
      if (stochastic && grid > Grid::int4) continue;
      const Quantizer how = {grid, 64, stochastic, 42, uint64_t(1) << 33, (uint64_t(1) << 34) - 75, 9};
      for (const auto& [name, pattern] : blocks) {
        Array x(200), one_hot(200);
        for (size_t i = 0; i < x.size(); ++i) x[i] = pattern[i % pattern.size()];
        one_hot[137] = pattern[0];
        agrees(how, x, {}, name);
        agrees(how, x, gaussian(200, 4, 1e-3f), name);
        agrees(how, x, x, name);
        agrees(how, one_hot, {}, concat("one-hot ", name));
        agrees(how, one_hot, Array(200), concat("one-hot ", name));
      }
      for (unsigned seed = 0; seed < 20; ++seed) {
        agrees(how, any(777, seed, false), {}, "any bits");
        agrees(how, any(777, seed, true), any(777, seed + 100, true), "any finite bits");
      }
    }
  }
}

TEST("quantize: the error is at most what the grid allows, at every size of numbers") {
  for (const auto level : available()) {
    kernels::select_simd(level);
    for (int exponent = -148; exponent < 127; ++exponent) {
      Array x = gaussian(256, unsigned(exponent + 200));
      for (float& v : x) v = std::ldexp(std::tanh(v), exponent);
      const double absmax = std::fabs(
          double(*std::max_element(x.begin(), x.end(), [](float a, float b) { return std::fabs(a) < std::fabs(b); })));
      for (const Grid grid : {Grid::int8, Grid::int4, Grid::e4m3, Grid::e5m2}) {
        for (const bool stochastic : {false, true}) {
          if (stochastic && grid > Grid::int4) continue;
          Memory payload(kernels::quantized_bytes(grid, 256, 256));
          Array left(256), out(256);
          kernels::quantize({.grid = grid, .stochastic = stochastic}, x.data(), left.data(), 256, payload.data());
          kernels::dequantize_into(grid, 256, out.data(), payload.data(), 256);
          const double scale = std::max(absmax / top_of(grid), 0x1p-126);
          for (size_t i = 0; i < 256; ++i) {
            // Half a step of the grid where x is, and the roundings of scale, t and the product: 2^-24 of x each.
            const double step = grid <= Grid::int4   ? scale * (stochastic ? 2 : 1)
                                : grid == Grid::e4m3 ? std::max(scale * 0x1p-9, std::fabs(x[i]) * 0x1p-3)
                                                     : std::max(scale * 0x1p-16, std::fabs(x[i]) * 0x1p-2);
            const double bound = step / 2 + 4 * std::fabs(x[i]) * 0x1p-24 + 0x1p-149;
            const double error = std::fabs(double(out[i]) - x[i]);
            CHECK(error <= bound, kNames[int(grid)], " 2^", exponent, " ", x[i], " became ", out[i], ", off by ", error,
                  " of ", bound);
            CHECK(left[i] == x[i] - out[i], kNames[int(grid)], " residual");
          }
        }
      }
    }
  }
}

TEST("quantize: stochastic rounding has no bias and goes by seed, step, stream and index") {
  constexpr size_t count = 1 << 16;
  const Quantizer base = {.grid = Grid::int8, .block = 256, .stochastic = true, .seed = 1};
  const auto codes = [&](Quantizer how, const Array& x) {
    Memory payload(kernels::quantized_bytes(how.grid, how.block, x.size()));
    kernels::quantize(how, x.data(), nullptr, x.size(), payload.data());
    return Memory(payload.end() - x.size(), payload.end());
  };
  for (const float fraction : {0.1f, 0.25f, 0.5f, 0.9f, -0.3f}) {
    Array x(count, 10 + fraction);
    for (size_t i = 0; i < count; i += 256) x[i] = 127;  // scale 1
    const Memory got = codes(base, x);
    double sum = 0;
    for (size_t i = 0; i < count; ++i) sum += i % 256 ? int8_t(got[i]) - double(x[i]) : 0;
    const double below = std::floor(x[1]), p = x[1] - below, drawn = count - count / 256;
    const double z = sum / std::sqrt(drawn * p * (1 - p));
    CHECK(std::fabs(z) < 4, "fraction ", fraction, ": ", z, " standard deviations off");  // by chance 1 of 16000
  }
  const Array x = gaussian(count, 8);
  const auto changed = [&](auto change) {
    Quantizer other = base;
    change(other);
    return codes(other, x) != codes(base, x);
  };
  CHECK(!changed([](Quantizer&) {}));
  CHECK(changed([](Quantizer& q) { q.seed = uint64_t(1) << 32; }));
  CHECK(changed([](Quantizer& q) { q.step = 1; }));
  CHECK(changed([](Quantizer& q) { q.stream = 1; }));
  CHECK(changed([](Quantizer& q) { q.index = 4; }));
  // A part of an array, with its index, has the codes of the whole.
  Quantizer part = base;
  part.index = 512;
  const Memory whole = codes(base, x), rest = codes(part, Array(x.begin() + 512, x.end()));
  CHECK(std::equal(rest.begin(), rest.end(), whole.begin() + 512));
}

TEST("philox: the known answers of Random123") {
  using kernels::philox;
  const auto answers = [](std::array<uint32_t, 4> counter, uint64_t key, std::array<uint32_t, 4> want) {
    const auto got = philox({{counter[0], counter[1], counter[2], counter[3]}}, key);
    for (int i = 0; i < 4; ++i) CHECK(got.word[i] == want[i], "word ", i, " is ", got.word[i], ", wanted ", want[i]);
  };
  answers({0, 0, 0, 0}, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  answers({~0u, ~0u, ~0u, ~0u}, ~uint64_t(0), {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  answers({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0x299f31d0a4093822,
          {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST("halves: with and without residual, every tail") {
  for (const DType half : {DType::f16, DType::bf16}) {
    for (const size_t count : {0, 1, 3, 15, 16, 17, 33, 1000}) {
      for (unsigned seed = 0; seed < 4; ++seed) {
        Array in = seed % 2 ? any(count, seed, false) : gaussian(count, seed, 1e3f);
        if (count > 15) in[3] = 65520, in[4] = -1e-7f, in[5] = kNan, in[6] = kInfinity, in[7] = 1e-45f;
        const Array before = gaussian(count, seed + 9);
        Memory want;
        Array want_left, want_sum;
        for (const auto level : available()) {
          kernels::select_simd(level);
          Memory plain(2 * count), fed(2 * count);
          Array left = before, sum = in, out(count), total = in;
          for (size_t i = 0; i < count; ++i) total[i] = in[i] + before[i];
          kernels::halve(half, total.data(), nullptr, count, plain.data());
          kernels::halve(half, in.data(), left.data(), count, fed.data());
          CHECK(plain == fed, name_of(half), " ", level);
          kernels::halves_add(half, out.data(), fed.data(), count);
          kernels::halves_add(half, sum.data(), fed.data(), count);
          for (size_t i = 0; i < count; ++i) {
            const float expected = std::isfinite(out[i]) ? total[i] - out[i] : 0;
            CHECK(left[i] == expected, name_of(half), " ", level, " ", total[i], " leaves ", left[i], ", wanted ",
                  expected);
            if (std::isfinite(out[i]))  // nothing is lost: both parts together are the whole, exactly
              CHECK(double(out[i]) + double(left[i]) == double(total[i]), name_of(half), " ", total[i]);
            CHECK(sum[i] == in[i] + out[i] || std::isnan(in[i] + out[i]), name_of(half), " sum");
          }
          if (level == available().front()) want = fed, want_left = left, want_sum = sum;
          kernels::select_simd(level);
          CHECK(fed == want && same(left, want_left) && same(sum, want_sum), name_of(half), " ", level, " [", count,
                "]");
        }
      }
    }
  }
}

TEST("checksum: every length, in parts, and every single bit") {
  std::mt19937 random(5);
  for (const size_t count : {0, 1, 2, 3, 4, 5, 63, 64, 65, 127, 128, 1000, 4099}) {
    Memory bytes(count);
    for (std::byte& b : bytes) b = std::byte(random());
    const uint32_t want = oracle::checksum(bytes);
    for (const auto level : available()) {
      kernels::select_simd(level);
      CHECK(kernels::checksum(bytes) == want, count, " ", level);
      const size_t half = count / 8 * 4;
      const ConstBytes all = bytes;
      const uint32_t parts = uint32_t(count) + kernels::mixed_sum(all.first(half), 0) +
                             kernels::mixed_sum(all.subspan(half), uint32_t(half / 4));
      CHECK(parts == want, count, " in parts, ", level);
    }
    for (size_t bit = 0; bit < std::min<size_t>(8 * count, 2000); ++bit) {
      bytes[bit / 8] ^= std::byte(1 << bit % 8);
      CHECK(kernels::checksum(bytes) != want, "bit ", bit, " of ", count, " bytes");
      bytes[bit / 8] ^= std::byte(1 << bit % 8);
    }
  }
}

int main(int argc, char** argv) {
  return check::run(argc, argv);
}
