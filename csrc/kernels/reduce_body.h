// The reduce kernels over one instruction set, Isa: its vector width in bytes, and how it loads and stores 16-bit
// integers in lanes of 32 bits, and f16 in lanes of f32 (NaN is canonical already). Memory-bound by design: each source
// is read once, each result written once, partial results stay in L1.
//
// All in an anonymous namespace, and nothing from std is called: a function that the linker might share between files
// could carry instructions that the processor does not have.
#pragma once
#include "kernels/reduce_table.h"
#include "kernels/vector.h"

namespace pycoll::kernels {
namespace {

// 16-bit values from and to the low halves of the lanes of BitsOf<F>: one, or a vector of them.
template <class Isa, class F>
BitsOf<F> load_halves(const std::byte* from) {
  if constexpr (IsVector<F>) {
    return Isa::template load_u16<BitsOf<F>>(from);
  } else {
    return load<uint16_t>(from);
  }
}
template <class Isa, class U>
void store_halves(std::byte* to, U halves) {
  if constexpr (IsVector<U>) {
    Isa::template store_u16<U>(to, halves);
  } else {
    store(to, uint16_t(halves));
  }
}

// How an element type is read and written, as one Lane or as a Vector of `lanes`.
template <class Isa, class T>
struct Direct {
  using Lane = T;
  using Vector = kernels::Vector<T, Isa::width>;
  using Partial = Direct;  // how unfinished results are kept
  static constexpr size_t bytes = sizeof(T), lanes = Isa::width / sizeof(T);
  static constexpr bool divides_vectors = std::is_floating_point_v<T>;
  template <class V>
  static V read(const std::byte* from) {
    return load<V>(from);
  }
  template <class V>
  static void write(std::byte* to, V v) {
    store(to, canonical(v));
  }
};

template <class Isa>
struct Bool : Direct<Isa, uint8_t> {
  using Partial = Bool;
  template <class V>
  static V read(const std::byte* from) {
    return truth(load<V>(from));
  }
};

// Only for prod: other operators see components.
template <class Isa, class T>
struct Pair : Direct<Isa, T> {
  using Lane = Pairs<kernels::Vector<T, 2 * sizeof(T)>>;
  using Vector = Pairs<kernels::Vector<T, Isa::width>>;
  using Partial = Pair;
  static constexpr size_t bytes = sizeof(Lane), lanes = Isa::width / sizeof(Lane);
};

template <class Isa>
struct BFloat16 : Direct<Isa, float> {
  using Partial = Direct<Isa, float>;
  static constexpr size_t bytes = 2;
  template <class F>
  static F read(const std::byte* from) {
    return widen_bf16<F>(load_halves<Isa, F>(from));
  }
  template <class F>
  static void write(std::byte* to, F v) {
    store_halves<Isa>(to, narrow_bf16(v));
  }
};

template <class Isa>
struct Float16 : Direct<Isa, float> {
  using Partial = Direct<Isa, float>;
  static constexpr size_t bytes = 2;
  template <class F>
  static F read(const std::byte* from) {
    if constexpr (IsVector<F>) {
      return Isa::template load_f16<F>(from);
    } else {
      return widen_f16<F>(load_halves<Isa, F>(from));
    }
  }
  template <class F>
  static void write(std::byte* to, F v) {
    if constexpr (IsVector<F>) {
      Isa::template store_f16<F>(to, canonical(v));
    } else {
      store_halves<Isa>(to, narrow_f16(v));
    }
  }
};

// The compiler must not know that `i` counts: it would vectorize or unroll loops over less than a vector.
inline void opaque(size_t& i) {
  asm volatile("" : "+r"(i));
}

// dst[i] = a[i] op b[i]. All of an element is read before it is written, so dst may be a or b.
template <class Op, class Dst, class A, class B>
void combine(std::byte* dst, const std::byte* a, const std::byte* b, size_t count) {
  using Vector = typename Dst::Vector;
  using Lane = typename Dst::Lane;
  size_t i = 0;
  for (; i + Dst::lanes <= count; i += Dst::lanes) {
    const Vector x = A::template read<Vector>(a + i * A::bytes), y = B::template read<Vector>(b + i * B::bytes);
    Dst::write(dst + i * Dst::bytes, Op::combine(x, y));
  }
  for (; i < count; ++i) {
    opaque(i);
    const Lane x = A::template read<Lane>(a + i * A::bytes), y = B::template read<Lane>(b + i * B::bytes);
    Dst::write(dst + i * Dst::bytes, Op::combine(x, y));
  }
}

// dst[i] = change(src[i]), by vectors of type Vector as far as they reach.
template <class Vector, class Dst, class Src, class Change>
void map(std::byte* dst, const std::byte* src, size_t count, Change change) {
  constexpr size_t lanes = sizeof(Vector) / sizeof(typename Dst::Lane);
  size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    Dst::write(dst + i * Dst::bytes, change(Src::template read<Vector>(src + i * Src::bytes)));
  }
  for (; i < count; ++i) {
    opaque(i);
    Dst::write(dst + i * Dst::bytes, change(Src::template read<typename Dst::Lane>(src + i * Src::bytes)));
  }
}

// dst[i] = src[i] / divisor.
template <class Dst, class Src>
void finish(std::byte* dst, const std::byte* src, size_t count, int divisor) {
  using Vector = typename Dst::Vector;
  using Dividend = std::conditional_t<Dst::divides_vectors, Vector, typename Dst::Lane>;
  if (divisor == 1) {
    map<Vector, Dst, Src>(dst, src, count, [](auto v) { return v; });
  } else {
    map<Dividend, Dst, Src>(dst, src, count, [divisor](auto v) { return divide(v, divisor); });
  }
}

inline constexpr size_t kBlockBytes = 4096;  // of partial results: a small part of L1, long enough for the prefetchers

template <class E, class Op>
void reduce(const Reduction& job) {
  using Partial = typename E::Partial;
  constexpr size_t block = kBlockBytes / Partial::bytes;
  const std::byte* const* srcs = job.srcs;
  if (job.sources == 1) return finish<E, E>(job.dst, srcs[0], job.count, job.divisor);
  if (job.sources == 2 && job.divisor == 1) return combine<Op, E, E, E>(job.dst, srcs[0], srcs[1], job.count);

  alignas(64) std::byte partial[kBlockBytes];
  const size_t kept = job.divisor == 1 ? job.sources - 1 : job.sources;
  for (size_t begin = 0; begin < job.count; begin += block) {
    const size_t count = job.count - begin < block ? job.count - begin : block, at = begin * E::bytes;
    combine<Op, Partial, E, E>(partial, srcs[0] + at, srcs[1] + at, count);
    // partial holds sources 0 to s - 1.
    for (size_t s = 2; s < kept; ++s) combine<Op, Partial, Partial, E>(partial, partial, srcs[s] + at, count);
    if (job.divisor == 1) {
      combine<Op, E, Partial, E>(job.dst + at, partial, srcs[kept] + at, count);
    } else {
      finish<E, Partial>(job.dst + at, partial, count, job.divisor);
    }
  }
}

template <class E, class V, class Change>
void sum_to_both(const PairSum& job, size_t i, Change change) {
  const size_t at = i * E::bytes;
  const V sum = change(Sum::combine(E::template read<V>(job.a + at), E::template read<V>(job.b + at)));
  E::write(job.dst + at, sum);
  E::write(job.also + at, sum);
}

template <class E, class Change>
void sum_all_to_both(const PairSum& job, Change change) {
  size_t i = 0;
  for (; i + E::lanes <= job.count; i += E::lanes) sum_to_both<E, typename E::Vector>(job, i, change);
  for (; i < job.count; ++i) {
    opaque(i);
    sum_to_both<E, typename E::Lane>(job, i, change);
  }
}

template <class E>
void sum_pair(const PairSum& job) {
  if (job.divisor == 1) {
    sum_all_to_both<E>(job, [](auto v) { return v; });
  } else {
    sum_all_to_both<E>(job, [&job](auto v) { return divide(v, job.divisor); });
  }
}

template <class E>
void scale(std::byte* dst, const std::byte* src, size_t count, double factor) {
  const auto by = typename E::Lane(factor);
  map<typename E::Vector, E, E>(dst, src, count, [by](auto v) { return decltype(v)(v * by); });
}

template <class Isa, class E>
void widen(std::byte* dst, const std::byte* src, size_t count) {
  map<typename E::Vector, Direct<Isa, float>, E>(dst, src, count, [](auto v) { return v; });
}

template <class Isa, class E>
void narrow(std::byte* dst, const std::byte* src, size_t count) {
  map<typename E::Vector, E, Direct<Isa, float>>(dst, src, count, [](auto v) { return v; });
}

template <class E>
constexpr void fill_arithmetic(Table& table, DType dtype) {
  const auto slot = [&](ReduceOp op) -> auto& { return table.reduce[int(op)][int(dtype)]; };
  slot(ReduceOp::sum) = reduce<E, Sum>;
  slot(ReduceOp::prod) = reduce<E, Prod>;
  slot(ReduceOp::min) = reduce<E, Min>;
  slot(ReduceOp::max) = reduce<E, Max>;
}

template <class E>
constexpr void fill_bitwise(Table& table, DType dtype) {
  const auto slot = [&](ReduceOp op) -> auto& { return table.reduce[int(op)][int(dtype)]; };
  slot(ReduceOp::band) = reduce<E, And>;
  slot(ReduceOp::bor) = reduce<E, Or>;
  slot(ReduceOp::bxor) = reduce<E, Xor>;
}

template <class E>
constexpr void fill_floating(Table& table, DType dtype) {
  fill_arithmetic<E>(table, dtype);
  table.sum_pair[int(dtype)] = sum_pair<E>;
  table.scale[int(dtype)] = scale<E>;
}

template <class Isa, class E>
constexpr void fill_half(Table& table, DType dtype) {
  fill_floating<E>(table, dtype);
  table.widen[int(dtype)] = widen<Isa, E>;
  table.narrow[int(dtype)] = narrow<Isa, E>;
}

template <class E>
constexpr void fill_integer(Table& table, DType dtype) {
  fill_arithmetic<E>(table, dtype);
  fill_bitwise<E>(table, dtype);
}

template <class Isa>
constexpr Table table_of(const char* name) {
  Table table{};
  table.name = name;
  fill_half<Isa, Float16<Isa>>(table, DType::f16);
  fill_half<Isa, BFloat16<Isa>>(table, DType::bf16);
  fill_floating<Direct<Isa, float>>(table, DType::f32);
  fill_floating<Direct<Isa, double>>(table, DType::f64);
  fill_integer<Direct<Isa, int8_t>>(table, DType::i8);
  fill_integer<Direct<Isa, int16_t>>(table, DType::i16);
  fill_integer<Direct<Isa, int32_t>>(table, DType::i32);
  fill_integer<Direct<Isa, int64_t>>(table, DType::i64);
  fill_integer<Direct<Isa, uint8_t>>(table, DType::u8);
  fill_integer<Direct<Isa, uint16_t>>(table, DType::u16);
  fill_integer<Direct<Isa, uint32_t>>(table, DType::u32);
  fill_integer<Direct<Isa, uint64_t>>(table, DType::u64);
  fill_bitwise<Bool<Isa>>(table, DType::boolean);
  table.reduce[int(ReduceOp::prod)][int(DType::c64)] = reduce<Pair<Isa, float>, PairProd>;
  table.reduce[int(ReduceOp::prod)][int(DType::c128)] = reduce<Pair<Isa, double>, PairProd>;
  return table;
}

}  // namespace
}  // namespace pycoll::kernels
