// Every operator, element type and instruction set of the reduce kernels against arithmetic written the slow way, bit
// for bit.
#include <array>
#include <cmath>
#include <complex>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "check.h"
#include "kernels/reduce.h"
#include "kernels/simd.h"
#include "levels.h"

using namespace pycoll;

namespace {

// --- The oracle: one element at a time, halves by way of double.

// A binary format with `digits` bits of fraction, least normal exponent `least`, and infinity as given.
template <int digits, int least, uint16_t infinity>
struct Half {
  using Value = float;
  static float widen(uint16_t bits) {
    const int exponent = (bits & 0x7fff) >> digits, fraction = bits & ((1 << digits) - 1);
    if (exponent == infinity >> digits) return fraction ? NAN : bits & 0x8000 ? -INFINITY : INFINITY;
    const double size = exponent ? std::ldexp(fraction + (1 << digits), exponent - 1 + least - digits)
                                 : std::ldexp(fraction, least - digits);
    return float(bits & 0x8000 ? -size : size);
  }
  static uint16_t narrow(float value) {
    if (std::isnan(value)) return infinity | (1 << (digits - 1));
    const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
    const double size = std::fabs(double(value));
    if (std::isinf(value)) return sign | infinity;
    const int exponent = size > 0 ? std::max(std::ilogb(size), least) : least;
    const double rounded = std::nearbyint(std::ldexp(size, digits - exponent));  // nearest even
    const double bits = std::ldexp(double(exponent - least), digits) + rounded;
    return sign | (bits < infinity ? uint16_t(bits) : infinity);
  }
  static float get(const std::byte* at) {
    uint16_t bits;
    std::memcpy(&bits, at, 2);
    return widen(bits);
  }
  static void put(std::byte* at, float value) {
    const uint16_t bits = narrow(value);
    std::memcpy(at, &bits, 2);
  }
};
using F16 = Half<10, -14, 0x7c00>;
using BF16 = Half<7, -126, 0x7f80>;

template <class T>
T canonical(T v) {
  if constexpr (std::is_floating_point_v<T>) {
    return std::isnan(v) ? std::numeric_limits<T>::quiet_NaN() : v;
  } else {
    return v;
  }
}
template <class T>
std::complex<T> canonical(std::complex<T> v) {
  return {canonical(v.real()), canonical(v.imag())};
}

template <class T>
struct Plain {
  using Value = T;
  static T get(const std::byte* at) {
    T value;
    std::memcpy(static_cast<void*>(&value), at, sizeof(T));
    return value;
  }
  static void put(std::byte* at, T value) {
    value = canonical(value);
    std::memcpy(at, &value, sizeof(T));
  }
};

struct Truth {
  using Value = bool;
  static bool get(const std::byte* at) { return *at != std::byte{0}; }
  static void put(std::byte* at, bool value) { *at = std::byte(value); }
};

template <class Do>
auto with_type(DType t, Do&& run) {
  switch (t) {
    case DType::f16: return run(F16());
    case DType::bf16: return run(BF16());
    case DType::f32: return run(Plain<float>());
    case DType::f64: return run(Plain<double>());
    case DType::i8: return run(Plain<int8_t>());
    case DType::i16: return run(Plain<int16_t>());
    case DType::i32: return run(Plain<int32_t>());
    case DType::i64: return run(Plain<int64_t>());
    case DType::u8: return run(Plain<uint8_t>());
    case DType::u16: return run(Plain<uint16_t>());
    case DType::u32: return run(Plain<uint32_t>());
    case DType::u64: return run(Plain<uint64_t>());
    case DType::boolean: return run(Truth());
    case DType::c64: return run(Plain<std::complex<float>>());
    case DType::c128: return run(Plain<std::complex<double>>());
  }
  throw Error("no such dtype");
}

bool oracle(ReduceOp op, bool a, bool b) {
  switch (op) {
    case ReduceOp::min:
    case ReduceOp::prod:
    case ReduceOp::band: return a && b;
    case ReduceOp::bxor: return a != b;
    default: return a || b;
  }
}

template <class T>
std::complex<T> oracle(ReduceOp op, std::complex<T> a, std::complex<T> b) {
  if (op != ReduceOp::prod) return {a.real() + b.real(), a.imag() + b.imag()};
  return {a.real() * b.real() - a.imag() * b.imag(), a.real() * b.imag() + a.imag() * b.real()};
}

template <class T>
  requires std::is_floating_point_v<T>
T oracle(ReduceOp op, T a, T b) {
  if (op == ReduceOp::prod) return a * b;
  if (op != ReduceOp::min && op != ReduceOp::max) return a + b;
  if (std::isnan(a) || std::isnan(b)) return NAN;
  const bool a_less = a < b || (a == b && std::signbit(a));
  return a_less == (op == ReduceOp::min) ? a : b;
}

template <class T>
  requires std::is_integral_v<T>
T oracle(ReduceOp op, T a, T b) {
  const auto x = static_cast<unsigned __int128>(a), y = static_cast<unsigned __int128>(b);
  switch (op) {
    case ReduceOp::min: return std::min(a, b);
    case ReduceOp::max: return std::max(a, b);
    case ReduceOp::prod: return T(uint64_t(x * y));
    case ReduceOp::band: return T(a & b);
    case ReduceOp::bor: return T(a | b);
    case ReduceOp::bxor: return T(a ^ b);
    default: return T(uint64_t(x + y));
  }
}

template <class T>
T divided(T v, int divisor) {
  if constexpr (std::is_same_v<T, bool>) {
    return v;
  } else if constexpr (std::is_integral_v<T>) {
    return T(static_cast<__int128>(v) / divisor);
  } else if constexpr (std::is_floating_point_v<T>) {
    return v / T(divisor);
  } else {
    return {v.real() / typename T::value_type(divisor), v.imag() / typename T::value_type(divisor)};
  }
}

template <class T>
T scaled(T v, double factor) {
  if constexpr (std::is_floating_point_v<T>) {
    return v * T(factor);
  } else if constexpr (std::is_integral_v<T>) {
    return v;  // not defined; never asked
  } else {
    return {v.real() * typename T::value_type(factor), v.imag() * typename T::value_type(factor)};
  }
}

// --- Data.

using Memory = std::vector<std::byte>;

// Bits at random, every third element (of a floating type: every third component) a special value.
Memory random_of(DType t, size_t count, unsigned seed) {
  std::mt19937_64 random(seed * 1000003u + unsigned(t));
  Memory memory(count * size_of(t));
  for (size_t i = 0; i < memory.size(); i += 8) {
    const uint64_t bits = random();
    std::memcpy(memory.data() + i, &bits, std::min<size_t>(8, memory.size() - i));
  }
  const auto sprinkle = [&](const auto& specials) {
    using Word = std::decay_t<decltype(specials[0])>;
    for (size_t i = 0; i + sizeof(Word) <= memory.size(); i += sizeof(Word)) {
      if (random() % 3 == 0) std::memcpy(memory.data() + i, &specials[random() % specials.size()], sizeof(Word));
    }
  };
  if (t == DType::f32 || t == DType::c64) {
    sprinkle(std::array<uint32_t, 14>{0u, 0x80000000u, 1u, 0x80000001u, 0x007fffffu, 0x00800000u, 0x3f800000u,
                                      0xbf800000u, 0x7f7fffffu, 0x7f800000u, 0xff800000u, 0x7fc00000u, 0xffc12345u,
                                      0x7f800001u});
  } else if (t == DType::f64 || t == DType::c128) {
    sprinkle(std::array<uint64_t, 9>{0u, 1ull << 63, 1u, 0x3ff0000000000000u, 0x7fefffffffffffffu, 0x7ff0000000000000u,
                                     0xfff0000000000000u, 0xfff8000000012345u, 0x7ff0000000000001u});
  } else if (t == DType::boolean) {
    sprinkle(std::array<uint8_t, 2>{0, 1});
  } else if (size_of(t) == 1) {
    sprinkle(std::array<uint8_t, 5>{0, 1, 0x7f, 0x80, 0xff});
  } else if (size_of(t) == 2) {
    sprinkle(std::array<uint16_t, 14>{0, 0x8000, 1, 0x8001, 0x3ff, 0x400, 0x7bff, 0x7c00, 0xfc00, 0x7c01, 0xfe12,
                                      0x7f80, 0xff80, 0x7fff});
  }
  return memory;
}

// `memory` at an address `offset` past a multiple of 64, with guards on both sides.
class Placed {
 public:
  Placed(const Memory& memory, size_t offset) : bytes_(memory.size()), raw_(memory.size() + 256, kGuard) {
    at_ = raw_.data() + 64 + (-reinterpret_cast<uintptr_t>(raw_.data()) % 64) + offset;
    if (bytes_) std::memcpy(at_, memory.data(), bytes_);
  }
  Placed(Placed&&) = default;
  std::byte* data() const { return at_; }
  bool holds(const Memory& want) const { return want.empty() || std::memcmp(at_, want.data(), want.size()) == 0; }
  bool guarded() const {
    for (const std::byte* p = raw_.data(); p < raw_.data() + raw_.size(); ++p) {
      if ((p < at_ || p >= at_ + bytes_) && *p != kGuard) return false;
    }
    return true;
  }

 private:
  static constexpr std::byte kGuard{0xa5};
  size_t bytes_;
  Memory raw_;
  std::byte* at_;
};

// The first element in which two results differ, for the message.
std::string difference(const std::byte* got, const Memory& want, DType t) {
  for (size_t i = 0; i < want.size(); ++i) {
    if (got[i] == want[i]) continue;
    const size_t element = i / size_of(t);
    std::string text = concat("element ", element, " got ");
    char digits[3];
    for (const std::byte* bytes : {got, want.data()}) {
      for (size_t b = size_of(t); b-- > 0;) {
        std::snprintf(digits, sizeof(digits), "%02x", unsigned(bytes[element * size_of(t) + b]));
        text += digits;
      }
      if (bytes == got) text += ", wanted ";
    }
    return text;
  }
  return "equal";
}

template <class Do>
void each_op_and_type(Do&& run) {
  for (int o = 0; o < kReduceOps; ++o) {
    for (int t = 0; t < kDTypes; ++t) {
      if (is_defined(ReduceOp(o), DType(t))) run(ReduceOp(o), DType(t));
    }
  }
}

Memory expected(ReduceOp op, DType t, const std::vector<Memory>& srcs, int divisor) {
  Memory out(srcs[0].size());
  with_type(t, [&](auto type) {
    using Type = decltype(type);
    for (size_t at = 0; at < out.size(); at += size_of(t)) {
      auto value = Type::get(srcs[0].data() + at);
      for (size_t s = 1; s < srcs.size(); ++s) value = oracle(op, value, Type::get(srcs[s].data() + at));
      Type::put(out.data() + at, divisor == 1 ? value : divided(value, divisor));
    }
  });
  return out;
}

constexpr size_t kCounts[] = {0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 129, 1003};

}  // namespace

TEST("reduce_into: counts, alignments, aliases") {
  const auto levels = available();
  each_op_and_type([&](ReduceOp op, DType t) {
    for (const size_t count : kCounts) {
      const Memory a = random_of(t, count, 1), b = random_of(t, count, 2);
      const Memory want = expected(op, t, {a, b}, 1), doubled = expected(op, t, {a, a}, 1);
      for (const auto level : levels) {
        kernels::select_simd(level);
        for (const size_t offset : {0, 1, 12}) {
          const Placed x(a, offset), y(b, offset ? 64 - offset : 0), z(a, offset), fresh(b, 2 * offset);
          const auto agrees = [&](const Placed& dst, const Memory& wanted, const char* how) {
            CHECK(dst.guarded(), name_of(op), " ", name_of(t), "[", count, "] ", level, " ", how);
            CHECK(dst.holds(wanted), name_of(op), " ", name_of(t), "[", count, "] ", level, " ", how, " offset ",
                  offset, ": ", difference(dst.data(), wanted, t));
          };
          const auto run = [&](const Placed& dst, const Placed& l, const Placed& r) {
            kernels::reduce_into({dst.data(), count, t}, {l.data(), count, t}, {r.data(), count, t}, op);
          };
          run(fresh, x, y);
          agrees(fresh, want, "apart");
          run(z, z, y);
          agrees(z, want, "dst == a");
          const Placed last(b, offset);
          run(last, x, last);
          agrees(last, want, "dst == b");
          const Placed all(a, offset);
          run(all, all, all);
          agrees(all, doubled, "dst == a == b");
          CHECK(x.holds(a) && y.holds(b));
        }
      }
    }
  });
}

TEST("reduce_into: a million elements") {
  const auto levels = available();
  constexpr size_t count = 1000003;
  each_op_and_type([&](ReduceOp op, DType t) {
    if (op == ReduceOp::avg || op == ReduceOp::premul_sum) return;  // sums, as the test above has shown
    const Memory a = random_of(t, count, 3), b = random_of(t, count, 4), want = expected(op, t, {a, b}, 1);
    for (const auto level : levels) {
      kernels::select_simd(level);
      const Placed dst(a, 4), x(b, 8);
      kernels::add_into({dst.data(), count, t}, {x.data(), count, t}, op);
      CHECK(dst.holds(want), name_of(op), " ", name_of(t), " ", level, ": ", difference(dst.data(), want, t));
    }
  });
}

TEST("reduce_all: 1 to 9 sources, divisors, aliases") {
  const auto levels = available();
  each_op_and_type([&](ReduceOp op, DType t) {
    for (const size_t count : {size_t(0), size_t(1), size_t(37), size_t(5003)}) {
      for (int sources = 1; sources <= 9; ++sources) {
        std::vector<Memory> data;
        for (int s = 0; s < sources; ++s) data.push_back(random_of(t, count, 10 + s));
        for (const int divisor : {1, sources, 300}) {
          if (divisor != 1 && op != ReduceOp::avg) continue;
          const Memory want = expected(op, t, data, divisor);
          for (const auto level : levels) {
            kernels::select_simd(level);
            // dst is none of the sources, the first, the last.
            for (const int alias : {-1, 0, sources - 1}) {
              std::vector<Placed> placed;
              for (int s = 0; s < sources; ++s) placed.emplace_back(data[s], s);
              std::vector<const std::byte*> srcs;
              for (const Placed& p : placed) srcs.push_back(p.data());
              const Placed fresh(Memory(want.size()), 4);
              const Placed& dst = alias < 0 ? fresh : placed[alias];
              kernels::reduce_all({dst.data(), count, t}, srcs, op, divisor);
              CHECK(dst.guarded(), name_of(op), " ", name_of(t), " ", level);
              CHECK(dst.holds(want), name_of(op), " ", name_of(t), "[", count, "] ", level, " sources ", sources,
                    " divisor ", divisor, " alias ", alias, ": ", difference(dst.data(), want, t));
            }
          }
        }
      }
    }
  });
}

TEST("reduce_pair: two places, in place or elsewhere") {
  const auto levels = available();
  each_op_and_type([&](ReduceOp op, DType t) {
    for (const size_t count : {size_t(0), size_t(1), size_t(37), size_t(5003)}) {
      const Memory a = random_of(t, count, 5), b = random_of(t, count, 6);
      for (const int divisor : {1, 2}) {
        if (divisor != 1 && op != ReduceOp::avg) continue;
        const Memory want = expected(op, t, {a, b}, divisor);
        for (const auto level : levels) {
          kernels::select_simd(level);
          for (const bool in_place : {false, true}) {
            const Placed x(a, 0), y(b, 4), fresh(Memory(want.size()), 8), other(Memory(want.size()), 12);
            const Placed &dst = in_place ? x : fresh, &also = in_place ? y : other;
            kernels::reduce_pair({dst.data(), count, t}, also.data(), x.data(), y.data(), op, divisor);
            CHECK(dst.guarded() && also.guarded(), name_of(op), " ", name_of(t), " ", level);
            CHECK(dst.holds(want) && also.holds(want), name_of(op), " ", name_of(t), "[", count, "] ", level,
                  " divisor ", divisor, ": ", difference(dst.data(), want, t), ", ", difference(also.data(), want, t));
          }
        }
      }
    }
  });
}

TEST("divide and scale") {
  const auto levels = available();
  for (int i = 0; i < kDTypes; ++i) {
    const DType t = DType(i);
    for (const size_t count : {size_t(0), size_t(1), size_t(33), size_t(2503)}) {
      const Memory a = random_of(t, count, 5);
      for (const auto level : levels) {
        kernels::select_simd(level);
        for (const int divisor : {2, 3, 1000}) {
          if (t == DType::boolean) continue;
          const Placed x(a, 1);
          kernels::divide({x.data(), count, t}, divisor);
          const Memory want = expected(ReduceOp::sum, t, {a}, divisor);
          CHECK(x.guarded() && x.holds(want), name_of(t), " ", level, ": ", difference(x.data(), want, t));
        }
        for (const double factor : {0.1, -3.0, 1e-40, double(INFINITY)}) {
          if (!is_floating(t)) continue;
          const Placed x(a, 2), y(a, 3);
          kernels::scale_into({x.data(), count, t}, {y.data(), count, t}, factor);
          Memory want(a.size());
          with_type(t, [&](auto type) {
            for (size_t at = 0; at < a.size(); at += size_of(t)) {
              decltype(type)::put(want.data() + at, scaled(decltype(type)::get(a.data() + at), factor));
            }
          });
          CHECK(x.guarded() && x.holds(want), name_of(t), " ", level, " factor ", factor, ": ",
                difference(x.data(), want, t));
        }
      }
    }
  }
}

TEST("halves: every one widened, every neighbourhood narrowed") {
  for (const auto level : available()) {
    kernels::select_simd(level);
    for (const DType t : {DType::f16, DType::bf16}) {
      std::vector<uint16_t> halves(65536 + 7);  // the last ones by the path for the rest
      for (size_t i = 0; i < halves.size(); ++i) halves[i] = uint16_t(i);
      std::vector<float> wide(halves.size());
      kernels::widen_into(wide.data(), {reinterpret_cast<const std::byte*>(halves.data()), halves.size(), t});
      std::vector<float> near;  // the half, the middle to the next one, and their neighbours
      for (size_t i = 0; i < halves.size(); ++i) {
        const float want = t == DType::f16 ? F16::widen(halves[i]) : BF16::widen(halves[i]);
        const float same = canonical(want);
        CHECK(std::memcmp(&wide[i], &same, 4) == 0, name_of(t), " ", level, " ", halves[i], " got ", wide[i]);
        const uint16_t next = uint16_t(halves[i] + 1);
        const float after = t == DType::f16 ? F16::widen(next) : BF16::widen(next);
        for (const float f : {want, float((double(want) + double(after)) / 2)}) {
          near.insert(near.end(), {f, std::nextafter(f, INFINITY), std::nextafter(f, -INFINITY)});
        }
      }
      near.insert(near.end(),
                  {65519.0f, 65520.0f, 65536.0f, 1e30f, -1e30f, 3.4e38f, 1e-45f, -1e-45f, 0.0f, -0.0f, NAN, -NAN});
      std::vector<uint16_t> narrowed(near.size());
      kernels::narrow_into({reinterpret_cast<std::byte*>(narrowed.data()), near.size(), t}, near.data());
      for (size_t i = 0; i < near.size(); ++i) {
        const uint16_t want = t == DType::f16 ? F16::narrow(near[i]) : BF16::narrow(near[i]);
        CHECK(narrowed[i] == want, name_of(t), " ", level, " ", near[i], " got ", narrowed[i], ", wanted ", want);
      }
    }
  }
}

TEST("select_simd refuses what it cannot run") {
  const auto levels = available();
  CHECK(!levels.empty() && levels.front() == "scalar");
  kernels::select_simd(levels.back());
  CHECK(kernels::simd() == levels.back());
  bool refused = false;
  try {
    kernels::select_simd("sse9");
  } catch (const InvalidArgument&) {
    refused = true;
  }
  CHECK(refused);
}

int main(int argc, char** argv) {
  return check::run(argc, argv);
}
