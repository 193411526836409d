// What the tests of device code share: fibers as the machine that runs kernels, and arrays that are not ordinary.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "kernels/device/fibers.h"

namespace device_test {

namespace device = pycoll::kernels::device;

inline const bool kQuick = std::getenv("PYCOLL_TEST_QUICK") != nullptr;
inline const uint64_t kSeeds = kQuick ? 1 : 3;
inline constexpr std::byte kUntouched{0xa5};
inline constexpr float kInf = std::numeric_limits<float>::infinity();

// What sequences of kernels run on (device/select.h).
struct Machine {
  uint64_t seed;
  uint32_t fill() const { return 5; }
  void zero(std::byte* memory, size_t bytes) { std::fill_n(memory, bytes, std::byte{0}); }
  template <class Body>
  void run(uint64_t blocks, Body body) {
    device::run_on_fibers(uint32_t(blocks), seed, [&](device::fibers::Thread& on) { body(on); });
  }
};

enum class Data { normal, wide, ties, zeros, special, one_hot, denormal };
inline constexpr Data kAllData[] = {Data::normal,  Data::wide,    Data::ties,    Data::zeros,
                                    Data::special, Data::one_hot, Data::denormal};

inline std::vector<float> make(Data data, size_t count, uint32_t seed) {
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

}  // namespace device_test
