// The widest vectors of float that the compiler was told of.
#pragma once
#include <immintrin.h>

#include <cstddef>

namespace {

#ifdef __AVX512F__
using Vector = __m512;
Vector load(const float* from) {
  return _mm512_loadu_ps(from);
}
Vector add(Vector a, Vector b) {
  return _mm512_add_ps(a, b);
}
void store(float* to, Vector v) {
  _mm512_storeu_ps(to, v);
}
void stream(float* to, Vector v) {
  _mm512_stream_ps(to, v);
}
#else
using Vector = __m128;
Vector load(const float* from) {
  return _mm_loadu_ps(from);
}
Vector add(Vector a, Vector b) {
  return _mm_add_ps(a, b);
}
void store(float* to, Vector v) {
  _mm_storeu_ps(to, v);
}
void stream(float* to, Vector v) {
  _mm_stream_ps(to, v);
}
#endif
constexpr size_t kLanes = sizeof(Vector) / sizeof(float);
constexpr size_t kLine = 64 / sizeof(float);

}  // namespace
