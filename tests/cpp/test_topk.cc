// Selection of the largest against a stable sort, on every instruction set, bit for bit; error feedback loses nothing.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "check.h"
#include "kernels/simd.h"
#include "kernels/topk.h"

using namespace pycoll;
using kernels::TopkState;

namespace {

const std::vector<std::string> kLevels = [] {
  std::vector<std::string> levels;
  for (const char* name : {"scalar", "avx2", "avx512"}) {
    try {
      kernels::select_simd(name);
      levels.push_back(name);
    } catch (const InvalidArgument&) {
      std::printf("skipped: this processor has no %s\n", name);
    }
  }
  return levels;
}();

uint32_t bits_of(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  return bits;
}
float float_of(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
}
uint32_t magnitude(float x) {
  return bits_of(x) & 0x7fffffffu;
}
bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

struct Selected {
  std::vector<uint32_t> index;
  std::vector<float> value, residual;
};

// in + residual, as it is stored.
std::vector<float> total(const std::vector<float>& in, const std::vector<float>& residual) {
  std::vector<float> sum = in;
  for (size_t i = 0; i < residual.size(); ++i) {
    sum[i] += residual[i];
    if (std::isnan(sum[i])) sum[i] = float_of(0x7fc00000u);
  }
  return sum;
}

Selected oracle(const std::vector<float>& in, const std::vector<float>& residual, size_t k) {
  Selected out{{}, {}, residual.empty() ? residual : total(in, residual)};
  const std::vector<float> from = total(in, residual);
  out.index.resize(in.size());
  std::iota(out.index.begin(), out.index.end(), 0);
  std::stable_sort(out.index.begin(), out.index.end(),
                   [&](uint32_t a, uint32_t b) { return magnitude(from[a]) > magnitude(from[b]); });
  out.index.resize(std::min(k, in.size()));
  std::sort(out.index.begin(), out.index.end());
  for (const uint32_t i : out.index) {
    out.value.push_back(from[i]);
    if (!residual.empty()) out.residual[i] = 0;
  }
  return out;
}

using Select = decltype(kernels::select_topk);

Selected run(Select select, const std::vector<float>& in, std::vector<float> residual, size_t k, TopkState& state) {
  Scratch scratch;
  const size_t room = std::min(k, in.size());
  Selected out{std::vector<uint32_t>(room + 1, 0xdeadbeef), std::vector<float>(room + 1, 12345.0f), residual};
  const size_t entries = select(in.data(), residual.empty() ? nullptr : out.residual.data(), in.size(), k, state,
                                {out.index.data(), out.value.data()}, scratch);
  CHECK(entries <= room, entries, " entries, room for ", room);
  CHECK(out.index[room] == 0xdeadbeef && out.value[room] == 12345.0f, "wrote beyond ", room);
  out.index.resize(entries);
  out.value.resize(entries);
  return out;
}

void check_same(const Selected& got, const Selected& want, const std::string& what) {
  CHECK(got.index.size() == want.index.size(), what, ": ", got.index.size(), " entries, wanted ", want.index.size());
  for (size_t i = 0; i < want.index.size(); ++i)
    CHECK(got.index[i] == want.index[i], what, ": entry ", i, " is ", got.index[i], ", wanted ", want.index[i]);
  CHECK(same(got.value, want.value), what, ": values differ");
  CHECK(same(got.residual, want.residual), what, ": residuals differ");
}

struct Input {
  std::string name;
  std::vector<float> in;
};

std::vector<Input> inputs(size_t count) {
  std::mt19937 random(uint32_t(count) + 1);
  std::normal_distribution<float> normal;
  std::vector<Input> all;
  const auto add = [&](const char* name, auto&& at) {
    std::vector<float> in(count);
    for (size_t i = 0; i < count; ++i) in[i] = at(i);
    all.push_back({name, std::move(in)});
  };
  add("normal", [&](size_t) { return normal(random); });
  add("zeros", [](size_t i) { return i % 2 ? -0.0f : 0.0f; });
  add("equal", [](size_t i) { return i % 3 ? 0.5f : -0.5f; });
  add("one hot", [&](size_t i) { return i == count * 2 / 3 ? -7.0f : 0.0f; });
  add("ascending", [](size_t i) { return float(i) * 0.25f; });
  add("descending", [&](size_t i) { return float(count - i) * -0.25f; });
  add("few values", [&](size_t) { return float(int(random() % 7) - 3); });
  add("a rare few", [&](size_t) { return random() % 50 ? 0.0f : normal(random); });
  add("half zero, half large", [&](size_t i) { return i < count / 2 ? 0.0f : 1e30f * normal(random); });
  add("any bits", [&](size_t) { return float_of(random()); });
  add("denormals", [&](size_t) { return float_of(random() & 0x807fffffu); });
  add("some NaN",
      [&](size_t) { return random() % 100 ? normal(random) : float_of(0x7fc00000u | (random() % 4) << 3); });
  add("all NaN", [&](size_t) { return float_of(0xffffffffu - random() % 2); });
  add("rows", [&](size_t i) { return normal(random) * (i / 97 % 11 == 3 ? 100.0f : 0.01f); });
  return all;
}

std::vector<size_t> wanted(size_t count) {
  std::vector<size_t> all = {0, 1, 2, count / 100, count / 10, count / 2, count - 1, count, count + 1, size_t(1) << 40};
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  std::erase_if(all, [&](size_t k) { return count == 0 && k > 1; });
  return all;
}

const bool kQuick = [] {
  const char* quick = std::getenv("PYCOLL_TEST_QUICK");
  return quick && *quick == '1';
}();

}  // namespace

TEST("the largest, whatever the state, with and without residual") {
  const std::vector<size_t> counts = kQuick ? std::vector<size_t>{0, 1, 5, 1000, 8011}
                                            : std::vector<size_t>{0, 1, 2, 15, 16, 17, 33, 1000, 4099, 9001};
  for (const size_t count : counts)
    for (const Input& input : inputs(count)) {
      std::vector<float> residual(count);
      std::mt19937 random(7);
      for (float& e : residual) e = random() % 3 ? 0.0f : std::normal_distribution<float>()(random);
      for (const size_t k : wanted(count))
        for (const auto& feedback : {std::vector<float>(), residual}) {
          const Selected want = oracle(input.in, feedback, k);
          for (const uint32_t threshold : {0u, 0x3f800000u})
            for (const std::string& level : kLevels) {
              if (threshold != 0 && level != kLevels.back()) continue;
              kernels::select_simd(level);
              TopkState state{threshold};
              check_same(run(kernels::select_topk, input.in, feedback, k, state), want,
                         concat(input.name, ", ", count, " elements, k ", k, feedback.empty() ? "" : ", residual",
                                ", threshold ", threshold, ", ", level));
            }
        }
    }
}

TEST("steps of a training lose nothing: e_new + sent == e_old + g") {
  const size_t count = kQuick ? 20000 : 300000, k = count / 100;
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  std::vector<float> in(count), residual(count, 0.0f);
  TopkState state;
  for (int step = 0; step < 6; ++step) {
    for (float& x : in) x = normal(random) * (step == 4 ? 1e-3f : 1.0f);
    const std::vector<float> before = total(in, residual);
    const Selected got = run(kernels::select_topk, in, residual, k, state);
    CHECK(got.index.size() == k, got.index.size());
    std::vector<float> after = got.residual;
    for (size_t i = 0; i < k; ++i) {
      CHECK(bits_of(after[got.index[i]]) == 0, "what was sent stays, at ", got.index[i]);
      after[got.index[i]] = got.value[i];
    }
    CHECK(same(after, before), "step ", step);
    residual = got.residual;
  }
}

TEST("near: between 3/4 k and k of the largest, the same on every instruction set") {
  for (const size_t count : {size_t(1), size_t(1000), size_t(4099), size_t(kQuick ? 8011 : 40009)})
    for (const Input& input : inputs(count))
      for (const size_t k : wanted(count))
        for (const auto& feedback : {std::vector<float>(), std::vector<float>(count, 0.25f)}) {
          Selected first;
          for (const std::string& level : kLevels) {
            kernels::select_simd(level);
            const std::string what = concat(input.name, ", ", count, " elements, k ", k, ", ", level);
            TopkState state;
            const Selected got = run(kernels::select_near, input.in, feedback, k, state);
            const std::vector<float> from = total(input.in, feedback);
            const size_t entries = got.index.size(), most = std::min(k, count);
            const size_t not_zero =
                size_t(std::count_if(from.begin(), from.end(), [](float x) { return magnitude(x) != 0; }));
            CHECK(entries <= most && entries >= std::min(not_zero, most - most / 4), what, ": ", entries);
            const Selected want = oracle(input.in, feedback, entries);
            std::vector<float> after = feedback.empty() ? from : got.residual;
            for (size_t i = 0; i < entries; ++i) after[got.index[i]] = got.value[i];
            CHECK(same(after, from), what, ": something is lost");
            // Which of equal elements are sent is free; how large they are is not.
            const auto smallest = [](const Selected& s) {
              uint32_t least = 0xffffffffu;
              for (const float x : s.value) least = std::min(least, magnitude(x));
              return least;
            };
            CHECK(smallest(got) == smallest(want), what, ": not the largest");
            CHECK(std::is_sorted(got.index.begin(), got.index.end()), what);
            if (level == kLevels.front()) first = got;
            check_same(got, first, what);
          }
        }
}

int main(int argc, char** argv) {
  return check::run(argc, argv);
}
