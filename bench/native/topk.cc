// Scratch bench
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>
#include <sys/mman.h>
#include "kernels/topk.h"
#include "kernels/simd.h"
using namespace pycoll;
using Clock = std::chrono::steady_clock;
static double now() { return std::chrono::duration<double>(Clock::now().time_since_epoch()).count(); }
static float* alloc(size_t n) { void* p = mmap(nullptr, n * 4 + (2<<20), PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0); if (getenv("HUGE")) madvise(p, n*4+(2<<20), MADV_HUGEPAGE); return (float*)p; }
__attribute__((noinline)) void axpy(float* e, const float* g, size_t n) { for (size_t i = 0; i < n; ++i) e[i] += g[i]; }
__attribute__((noinline)) float sum(const float* g, size_t n) { float s[64] = {}; for (size_t i = 0; i + 64 <= n; i += 64) for (int j = 0; j < 64; ++j) s[j] += g[i+j]; float t = 0; for (float x : s) t += x; return t; }
int main(int argc, char** argv) {
  size_t n = argc > 1 ? size_t(atof(argv[1])) : 10000000, k = n / 100;
  float *g = alloc(n), *e = alloc(n);
  std::mt19937 r(1); uint64_t s = 88172645463325252ull;
  auto u = [&] { s ^= s << 13; s ^= s >> 7; s ^= s << 17; return int32_t(s) * 0x1p-31f; };
  for (size_t i = 0; i < n; ++i) { float a = 0; for (int j = 0; j < 6; ++j) a += u(); g[i] = a; e[i] = u(); }
  std::vector<uint32_t> idx(k); std::vector<float> val(k);
  Scratch scratch; kernels::TopkState st;
  int reps = n > 50000000 ? 5 : 15;
  auto best = [&](const char* name, double bytes, auto f) { std::vector<double> t; for (int i = 0; i < reps; ++i) { double a = now(); f(); t.push_back(now() - a); } std::sort(t.begin(), t.end()); printf("%-14s min %8.3f ms  med %8.3f ms  %6.2f GB/s (med)\n", name, t[0]*1e3, t[t.size()/2]*1e3, bytes / t[t.size()/2] / 1e9); };
  volatile float sink = 0;
  best("e += g", 12.0*n, [&] { axpy(e, g, n); });
  best("sum", 4.0*n, [&] { sink = sum(g, n); });
  best("topk ef", 12.0*n, [&] { kernels::select_topk(g, e, n, k, st, {idx.data(), val.data()}, scratch); });
  best("near ef", 12.0*n, [&] { kernels::select_near(g, e, n, k, st, {idx.data(), val.data()}, scratch); });
  best("topk plain", 4.0*n, [&] { kernels::select_topk(g, nullptr, n, k, st, {idx.data(), val.data()}, scratch); });
  best("near plain", 4.0*n, [&] { kernels::select_near(g, nullptr, n, k, st, {idx.data(), val.data()}, scratch); });
  best("e += g", 12.0*n, [&] { axpy(e, g, n); });
}
