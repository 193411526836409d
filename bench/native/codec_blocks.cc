// The kernels of the dense codecs on one thread, each in turn with a plain loop that moves the same mix of bytes: for
// bench/codec.py, which says what the columns mean.
//
//     codec_blocks ELEMENTS huge|plain ROUNDS
//
// Prints a JSON object a line. A time is the median of ROUNDS calls.
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "codec/blocks.h"
#include "kernels/checksum.h"
#include "kernels/quantize.h"

using namespace pycoll;
using kernels::Grid;

namespace {

// Memory of its own pages, touched; `huge` asks for pages of 2 MiB, else they are refused.
template <class T>
T* pages(size_t count, bool huge) {
  constexpr size_t page = size_t(2) << 20;
  const size_t bytes = (count * sizeof(T) + page) / page * page;
  void* const memory = std::aligned_alloc(page, bytes);
  if (!memory) std::exit(3);
  madvise(memory, bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
  std::memset(memory, 0, bytes);
  return static_cast<T*>(memory);
}

// The references: as much as a compiler makes of a loop that only has to move the bytes.
template <class Narrow>
[[gnu::noinline]] void narrow(const int* __restrict in, Narrow* __restrict out, size_t count) {
  for (size_t i = 0; i < count; ++i) out[i] = Narrow(in[i] >> 8);
}
template <class Narrow>
[[gnu::noinline]] void narrow_fed(const float* __restrict in, float* __restrict left, Narrow* __restrict out,
                                  size_t count) {
  for (size_t i = 0; i < count; ++i) {
    const float x = in[i] + left[i];
    int bits;
    std::memcpy(&bits, &x, 4);
    out[i] = Narrow(bits >> 8);
    left[i] = x * 0.5f;
  }
}
template <class Narrow>
[[gnu::noinline]] void widen(const Narrow* __restrict in, float* __restrict out, size_t count) {
  for (size_t i = 0; i < count; ++i) out[i] = float(in[i]);
}
template <class Narrow>
[[gnu::noinline]] void widen_add(const Narrow* __restrict in, float* __restrict acc, size_t count) {
  for (size_t i = 0; i < count; ++i) acc[i] += float(in[i]);
}

double seconds(const std::function<void()>& call) {
  const auto begin = std::chrono::steady_clock::now();
  call();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

struct Case {
  std::string codec, direction;
  double bytes, reference_bytes;  // an element
  std::function<void()> call, reference;
};

void measure(const Case& c, size_t count, int rounds) {
  std::vector<double> ours, plain;
  c.call();
  c.reference();
  for (int round = 0; round < rounds; ++round) {
    ours.push_back(seconds(c.call));
    plain.push_back(seconds(c.reference));
  }
  std::sort(ours.begin(), ours.end());
  std::sort(plain.begin(), plain.end());
  const double time = ours[rounds / 2], rate = c.bytes * count / time / 1e9;
  const double reference = c.reference_bytes * count / plain[rounds / 2] / 1e9;
  std::printf(
      "{\"codec\": \"%s\", \"direction\": \"%s\", \"elements\": %zu, \"ms\": %.4f, \"gbs\": %.2f, "
      "\"reference_gbs\": %.2f, \"percent\": %.1f}\n",
      c.codec.c_str(), c.direction.c_str(), count, time * 1e3, rate, reference, 100 * rate / reference);
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return std::fprintf(stderr, "usage: codec_blocks ELEMENTS huge|plain ROUNDS\n"), 2;
  const size_t count = size_t(std::atof(argv[1]));
  const bool huge = std::string(argv[2]) == "huge";
  const int rounds = std::max(1, std::atoi(argv[3]));
  float* const x = pages<float>(count, huge);
  float* const left = pages<float>(count, huge);
  float* const out = pages<float>(count, huge);
  std::byte* const wire = pages<std::byte>(2 * count + count / 8 + 4096, huge);
  auto* const bytes = reinterpret_cast<int8_t*>(wire);
  auto* const halves = reinterpret_cast<int16_t*>(wire);
  uint32_t state = 1;
  for (size_t i = 0; i < count; ++i) x[i] = float((state = state * 1664525 + 1013904223) >> 8) * 0x1p-24f - 0.5f;

  const auto narrows = [=] { narrow(reinterpret_cast<const int*>(x), bytes, count); };
  const auto narrows_fed = [=] { narrow_fed(x, left, bytes, count); };
  const struct {
    const char* name;
    Grid grid;
    double bytes;
  } grids[] = {{"int8", Grid::int8, 1},
               {"int4", Grid::int4, 0.5},
               {"fp8 e4m3", Grid::e4m3, 1},
               {"fp8 e5m2", Grid::e5m2, 1},
               {"sign", Grid::bit, 0.125}};
  for (const auto& g : grids) {
    const double code = g.bytes + 4 / 256.0;
    const Grid grid = g.grid;
    const auto quantize = [=](bool stochastic, float* residual) {
      kernels::quantize({.grid = grid, .stochastic = stochastic}, x, residual, count, wire);
    };
    if (grid <= Grid::int4)
      measure({g.name, "quantize stochastic", 4 + code, 5, [=] { quantize(true, nullptr); }, narrows}, count, rounds);
    measure({g.name, "quantize with residual", 12 + code, 13, [=] { quantize(false, left); }, narrows_fed}, count,
            rounds);
    measure({g.name, "quantize", 4 + code, 5, [=] { quantize(false, nullptr); }, narrows}, count, rounds);
    quantize(false, nullptr);
    measure({g.name, "decode", 4 + code, 5, [=] { kernels::dequantize_into(grid, 256, out, wire, count); },
             [=] { widen(bytes, out, count); }},
            count, rounds);
    measure({g.name, "decode and add", 8 + code, 9, [=] { kernels::dequantize_add(grid, 256, out, wire, count); },
             [=] { widen_add(bytes, out, count); }},
            count, rounds);
  }
  for (const DType half : {DType::f16, DType::bf16}) {
    const std::string name = "cast " + std::string(name_of(half));
    measure({name, "encode with residual", 14, 14, [=] { kernels::halve(half, x, left, count, wire); },
             [=] { narrow_fed(x, left, halves, count); }},
            count, rounds);
    measure({name, "encode", 6, 6, [=] { kernels::halve(half, x, nullptr, count, wire); },
             [=] { narrow(reinterpret_cast<const int*>(x), halves, count); }},
            count, rounds);
    kernels::halve(half, x, nullptr, count, wire);
    measure({name, "decode and add", 10, 10, [=] { kernels::halves_add(half, out, wire, count); },
             [=] { widen_add(halves, out, count); }},
            count, rounds);
  }
  const auto codec = codec::make({});
  const size_t room = codec->most_bytes(count);
  measure({"int8", "header, codes, checksum", 5 + 4 / 256.0, 5,
           [&] { codec->encode({x, count}, nullptr, {}, {wire, room}); }, narrows},
          count, rounds);
  codec->encode({x, count}, nullptr, {}, {wire, room});
  std::byte* const other = reinterpret_cast<std::byte*>(left);
  measure({"int8", "check, decode and add", 9 + 4 / 256.0, 9,
           [&] { codec::decode_add({out, count}, {wire, room}, "of itself"); },
           [=] { widen_add(reinterpret_cast<int8_t*>(other), out, count); }},
          count, rounds);
}
