// Top-k with and without error feedback on one thread, beside what the same thread's memory allows for the same bytes:
// "codec_topk COUNT RATIO ROUNDS", on normal random numbers. Prints JSON of milliseconds, round by round.
#include <sys/mman.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <vector>

#include "codec/topk.h"
#include "kernels/topk.h"

namespace {

using namespace pycoll;

double milliseconds() {
  using std::chrono::duration, std::chrono::steady_clock;
  return duration<double, std::milli>(steady_clock::now().time_since_epoch()).count();
}

// On large pages where the kernel gives them, as it does to arrays that libraries allocate aligned.
float* allocate(size_t count) {
  constexpr size_t page = size_t(2) << 20;
  const size_t bytes = (count * sizeof(float) + page - 1) / page * page;
  void* const memory = std::aligned_alloc(page, bytes);
  if (!memory) std::abort();
  madvise(memory, bytes, MADV_HUGEPAGE);
  return static_cast<float*>(memory);
}

__attribute__((noinline)) void add(float* __restrict e, const float* __restrict g, size_t count) {
  for (size_t i = 0; i < count; ++i) e[i] += g[i];
}

// Reads all, in sums enough to keep the adders busy.
__attribute__((noinline)) float read(const float* g, size_t count) {
  constexpr size_t sums = 128;
  float sum[sums] = {};
  for (size_t i = 0; i + sums <= count; i += sums)
    for (size_t lane = 0; lane < sums; ++lane) sum[lane] += g[i + lane];
  float total = 0;
  for (const float s : sum) total += s;
  return total;
}

struct Contestant {
  const char* name;
  std::function<void()> run;
  std::vector<double> times;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: codec_topk COUNT RATIO ROUNDS\n");
    return 2;
  }
  const size_t count = size_t(std::atof(argv[1])), rounds = size_t(std::atoi(argv[3]));
  const double ratio = std::atof(argv[2]);
  const size_t k = size_t(std::ceil(ratio * double(count)));
  float *const g = allocate(count), *const e = allocate(count);
  std::mt19937_64 random(1);
  const auto refill = [&] {
    for (size_t i = 0; i < count; i += 2) {  // Box and Muller's pairs
      const uint64_t bits = random();
      const double radius = std::sqrt(-2 * std::log(double((bits >> 32) + 1) * 0x1p-32));
      const double angle = double(uint32_t(bits)) * (2 * 3.14159265358979 * 0x1p-32);
      g[i] = float(radius * std::cos(angle));
      if (i + 1 < count) g[i + 1] = float(radius * std::sin(angle));
    }
  };
  refill();
  std::vector<uint32_t> index(k);
  std::vector<float> value(k);
  kernels::TopkState state;
  Scratch scratch;
  const codec::TopK exact({ratio, 0}, true, codec::ValueFormat::f32), near({ratio, 0}, false, codec::ValueFormat::f32);
  std::vector<std::byte> wire(exact.most_bytes(count));
  volatile float sink = 0;
  const auto select = [&](auto kernel, float* residual) {
    kernel(g, residual, count, k, state, {index.data(), value.data()}, scratch);
  };
  std::vector<Contestant> all = {
      {"add", [&] { add(e, g, count); }, {}},
      {"read", [&] { sink = read(g, count); }, {}},
      {"topk_feedback", [&] { select(kernels::select_topk, e); }, {}},
      {"near_feedback", [&] { select(kernels::select_near, e); }, {}},
      {"topk", [&] { select(kernels::select_topk, nullptr); }, {}},
      {"near", [&] { select(kernels::select_near, nullptr); }, {}},
      {"encode_topk_feedback", [&] { exact.encode({g, count}, e, {}, wire); }, {}},
      {"encode_near_feedback", [&] { near.encode({g, count}, e, {}, wire); }, {}},
  };
  // The residual before each: normal, and of the same size whoever ran before.
  std::vector<float> residual(g, g + count);
  for (size_t round = 0; round <= rounds; ++round)
    for (Contestant& contestant : all) {
      for (size_t i = 0; i < count; ++i) e[i] = residual[count - 1 - i];
      const double begin = milliseconds();
      contestant.run();
      if (round > 0) contestant.times.push_back(milliseconds() - begin);  // the first warms up
    }
  std::printf("{");
  for (const Contestant& contestant : all) {
    std::printf("%s\"%s\": [", &contestant == &all[0] ? "" : ", ", contestant.name);
    for (size_t i = 0; i < contestant.times.size(); ++i) std::printf("%s%.4f", i ? ", " : "", contestant.times[i]);
    std::printf("]");
  }
  std::printf("}\n");
  (void)sink;
}
