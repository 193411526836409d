// The arithmetic of one element, written once for a lane (T), a vector of lanes (GNU vector of T), and a CUDA thread.
//
// Every NaN that is stored is the positive quiet NaN without payload (f16 7e00, bf16 7fc0, f32 7fc00000, f64 7ff8...0):
// hardware disagrees about signs and payloads, this does not. min and max order -0 before +0 and return NaN if any
// operand is NaN (IEEE 754-2019 minimum, maximum), so all operations but complex prod are commutative to the bit.
// Complex prod is the schoolbook formula, without recovery of infinities.
//
// All in an anonymous namespace: each file that includes this compiles its own copy for its own instruction set.
#pragma once
#include <cstdint>
#include <cstring>
#include <type_traits>

#ifdef __CUDACC__
#define PYCOLL_ELEMENT __host__ __device__ inline
#else
#define PYCOLL_ELEMENT inline
#endif

namespace pycoll::kernels {
namespace {

template <class T>
struct Complex {
  T re, im;
};

template <size_t bytes>
struct UnsignedOf;
template <>
struct UnsignedOf<1> {
  using type = uint8_t;
};
template <>
struct UnsignedOf<2> {
  using type = uint16_t;
};
template <>
struct UnsignedOf<4> {
  using type = uint32_t;
};
template <>
struct UnsignedOf<8> {
  using type = uint64_t;
};

// What V is made of: the type of a lane, and V's bits as unsigned lanes. vector.h adds the vectors.
template <class V>
struct Shape {
  using Lane = V;
  using Bits = typename UnsignedOf<sizeof(V)>::type;
};
template <class V>
using LaneOf = typename Shape<V>::Lane;
template <class V>
using BitsOf = typename Shape<V>::Bits;
template <class V>
inline constexpr bool kFloating = std::is_floating_point_v<LaneOf<V>>;

// The same bits as another type.
template <class To, class From>
PYCOLL_ELEMENT To as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof(to));
  return to;
}
// `lane` in every lane. Not for -0.
template <class V>
PYCOLL_ELEMENT V splat(LaneOf<V> lane) {
  return V(V{} + lane);
}

template <class V>
PYCOLL_ELEMENT V quiet_nan() {
  if constexpr (sizeof(LaneOf<V>) == 4) {
    return as<V>(splat<BitsOf<V>>(0x7fc00000u));
  } else {
    return as<V>(splat<BitsOf<V>>(0x7ff8000000000000u));
  }
}

// What is stored for `v`.
template <class V>
PYCOLL_ELEMENT V canonical(V v) {
  if constexpr (kFloating<V>) {
    return v == v ? v : quiet_nan<V>();
  } else {
    return v;
  }
}
template <class T>
PYCOLL_ELEMENT Complex<T> canonical(Complex<T> v) {
  return {canonical(v.re), canonical(v.im)};
}

// bool is any byte but zero, and stored as one.
template <class V>
PYCOLL_ELEMENT V truth(V v) {
  return v != V{} ? splat<V>(1) : V{};
}

// --- Operators. Signed integers go through their bits, so that they wrap by definition.

struct Sum {
  template <class V>
  PYCOLL_ELEMENT static V combine(V a, V b) {
    if constexpr (kFloating<V>) {
      return a + b;
    } else {
      return as<V>(BitsOf<V>(as<BitsOf<V>>(a) + as<BitsOf<V>>(b)));
    }
  }
};

struct Prod {
  template <class V>
  PYCOLL_ELEMENT static V combine(V a, V b) {
    if constexpr (kFloating<V>) {
      return a * b;
    } else if constexpr (sizeof(V) < sizeof(unsigned)) {
      return V(unsigned(a) * unsigned(b));  // int, to which these would be promoted, overflows
    } else {
      return as<V>(as<BitsOf<V>>(a) * as<BitsOf<V>>(b));
    }
  }
  template <class T>
  PYCOLL_ELEMENT static Complex<T> combine(Complex<T> a, Complex<T> b) {
    return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
  }
};

// For floats, `less` is `b` where nothing is less: for equals, and where one is NaN. Asked both ways round, the bits of
// the answers are equal but in two cases, and there `or` is right: -0 wins over +0, a NaN makes a NaN.
struct Min {
  template <class V>
  PYCOLL_ELEMENT static V combine(V a, V b) {
    if constexpr (kFloating<V>) {
      return as<V>(as<BitsOf<V>>(less(a, b)) | as<BitsOf<V>>(less(b, a)));
    } else {
      return less(a, b);
    }
  }

 private:
  template <class V>
  PYCOLL_ELEMENT static V less(V a, V b) {
    return a < b ? a : b;
  }
};

struct Max {
  template <class V>
  PYCOLL_ELEMENT static V combine(V a, V b) {
    if constexpr (kFloating<V>) {
      return -Min::combine(V(-a), V(-b));
    } else {
      return a > b ? a : b;
    }
  }
};

struct And {
  template <class V>
  PYCOLL_ELEMENT static V combine(V a, V b) {
    return V(a & b);
  }
};

struct Or {
  template <class V>
  PYCOLL_ELEMENT static V combine(V a, V b) {
    return V(a | b);
  }
};

struct Xor {
  template <class V>
  PYCOLL_ELEMENT static V combine(V a, V b) {
    return V(a ^ b);
  }
};

// Division by a positive int: exact quotient rounded once; integers truncate toward zero, and come one lane at a time.
template <class V>
PYCOLL_ELEMENT V divide(V v, int divisor) {
  if constexpr (kFloating<V>) {
    return v / splat<V>(LaneOf<V>(divisor));
  } else if constexpr (sizeof(V) < sizeof(int)) {
    return V(int(v) / divisor);
  } else {
    return v / V(divisor);
  }
}
template <class T>
PYCOLL_ELEMENT Complex<T> divide(Complex<T> v, int divisor) {
  return {divide(v.re, divisor), divide(v.im, divisor)};
}

// --- Halves. F is float or a vector of float; the half sits in the low 16 bits of its lane of BitsOf<F>.
// Flush-to-zero modes change nothing: the float operations used here give the same for a denormal as for zero.

template <class F>
PYCOLL_ELEMENT F widen_bf16(BitsOf<F> half) {
  return as<F>(half << 16);
}

template <class F>
PYCOLL_ELEMENT BitsOf<F> narrow_bf16(F value) {
  using U = BitsOf<F>;
  const U bits = as<U>(value);
  const U rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return value == value ? rounded : splat<U>(0x7fc0u);
}

template <class F>
PYCOLL_ELEMENT F widen_f16(BitsOf<F> half) {
  using U = BitsOf<F>;
  const U magnitude = (half & 0x7fffu) << 13;
  const F above = as<F>(U(magnitude + (113u << 23)));  // 2^-14 more if denormal, else two times as large
  const U denormal = as<U>(F(above - splat<F>(0x1p-14f)));
  const U normal = magnitude + (112u << 23);
  const U special = magnitude | 0x7f800000u;
  const U bits = above < splat<F>(0x1p-13f) ? denormal : (above < splat<F>(0x1p17f) ? normal : special);
  return as<F>(U(bits | ((half & 0x8000u) << 16)));
}

template <class F>
PYCOLL_ELEMENT BitsOf<F> narrow_f16(F value) {
  using U = BitsOf<F>;
  const U bits = as<U>(value), sign = (bits >> 16) & 0x8000u;
  const F size = as<F>(U(bits & 0x7fffffffu));
  const U rebased = as<U>(size) - (112u << 23);
  const U normal = (rebased + 0xfffu + ((rebased >> 13) & 1u)) >> 13;  // carries into the exponent, up to infinity
  const F half = splat<F>(0.5f);                                       // whose last place is the least denormal
  const U denormal = as<U>(F(size + half)) - as<U>(half);
  const U finite = size < splat<F>(0x1p-14f) ? denormal : normal;
  const U rounded = size < splat<F>(0x1p16f) ? finite : splat<U>(0x7c00u);
  return value == value ? U(rounded | sign) : splat<U>(0x7e00u);
}

// --- 8-bit floats of the OCP, in the low 8 bits of their lanes. Only finite values that round to finite codes; all
// codes widen as if they were finite.

struct E4M3 {
  static constexpr int digits = 3, bias = 7;
  static constexpr float top = 448, least_normal = 0x1p-6f;
};
struct E5M2 {
  static constexpr int digits = 2, bias = 15;
  static constexpr float top = 57344, least_normal = 0x1p-14f;
};

// `ruler` is a power of two whose last place is that of the result, so adding it rounds. What is above it in the sum is
// the last places counted: 0 to 2^digits at the least exponent, 2^digits more for each exponent from there.
template <class Format, class F>
PYCOLL_ELEMENT BitsOf<F> narrow_fp8(F value) {
  using U = BitsOf<F>;
  constexpr uint32_t least = uint32_t(128 - Format::bias) << 23, above = uint32_t(23 - Format::digits) << 23;
  const U bits = as<U>(value), size = bits & 0x7fffffffu, own = size & 0x7f800000u, smallest = splat<U>(least);
  const U exponent = own > smallest ? own : smallest, ruler = exponent + above;
  const U places = as<U>(F(as<F>(size) + as<F>(ruler))) - ruler;
  return (places + ((exponent - least) >> (23 - Format::digits))) | ((bits >> 24) & 0x80u);
}

template <class Format, class F>
PYCOLL_ELEMENT F widen_fp8(BitsOf<F> code) {
  using U = BitsOf<F>;
  const U magnitude = (code & 0x7fu) << (23 - Format::digits);
  const F above = as<F>(U(magnitude + (uint32_t(128 - Format::bias) << 23)));  // least_normal more if denormal
  const U denormal = as<U>(F(above - splat<F>(Format::least_normal)));
  const U normal = magnitude + (uint32_t(127 - Format::bias) << 23);
  const U bits = above < splat<F>(2 * Format::least_normal) ? denormal : normal;
  return as<F>(U(bits | ((code & 0x80u) << 24)));
}

}  // namespace
}  // namespace pycoll::kernels
