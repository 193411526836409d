// GNU vectors as values for the templates of element.h. In an anonymous namespace for the same reason.
#pragma once
#include <cstddef>
#include <utility>

#include "kernels/element.h"

namespace pycoll::kernels {
namespace {

template <class T, size_t bytes>
struct VectorOf {
  typedef T type __attribute__((vector_size(bytes)));
};
template <class T, size_t bytes>
using Vector = typename VectorOf<T, bytes>::type;

template <class V>
concept IsVector = requires(V v) { v[0]; };

template <IsVector V>
struct Shape<V> {
  using Lane = std::remove_cvref_t<decltype(std::declval<V>()[0])>;
  using Bits = Vector<typename UnsignedOf<sizeof(Lane)>::type, sizeof(V)>;
};

// Memory of any alignment.
template <class V>
inline V load(const std::byte* from) {
  V v;
  memcpy(&v, from, sizeof(V));
  return v;
}
template <class V>
inline void store(std::byte* to, V v) {
  memcpy(to, &v, sizeof(V));
}

// 0, 1, 2, ...
template <class V>
inline V iota() {
  V v{};
  for (size_t i = 0; i < sizeof(V) / sizeof(v[0]); ++i) v[i] = LaneOf<V>(i);
  return v;
}

// Complex numbers side by side: re, im, re, im, ...
template <class V>
struct Pairs {
  V v;
};
template <class V>
inline Pairs<V> canonical(Pairs<V> x) {
  return {canonical(x.v)};
}
template <class V>
inline Pairs<V> divide(Pairs<V> x, int divisor) {
  return {divide(x.v, divisor)};
}

// The formula of Prod for Complex, to the bit. Written with vectors because gcc 12 makes fused multiply-adds of the
// scalar form (its fmaddsub pattern), whatever -ffp-contract says.
struct PairProd {
  template <class V>
  static Pairs<V> combine(Pairs<V> a, Pairs<V> b) {
    return product(a.v, b.v, std::make_index_sequence<sizeof(V) / sizeof(LaneOf<V>)>());
  }

 private:
  template <class V, size_t... i>
  static Pairs<V> product(V a, V b, std::index_sequence<i...>) {
    const V re = __builtin_shufflevector(a, a, (i & ~size_t{1})...), im = __builtin_shufflevector(a, a, (i | 1)...);
    const V swapped = __builtin_shufflevector(b, b, (i ^ 1)...);
    const V minus_plus = {(i % 2 ? LaneOf<V>(0) : -LaneOf<V>(0))...};
    const V cross = as<V>(as<BitsOf<V>>(V(im * swapped)) ^ as<BitsOf<V>>(minus_plus));
    return {re * b + cross};
  }
};

}  // namespace
}  // namespace pycoll::kernels
