#include "core/copy.h"

#include <algorithm>
#include <cstring>

#if defined(__x86_64__)
#include <emmintrin.h>
#endif

namespace pycoll {
namespace {

constexpr size_t kLine = 64;
// Below this the lines are too few to pay for the fence and the way to memory.
constexpr size_t kStreamedBytes = 1 << 10;

#if defined(__x86_64__)
// `bytes` is a multiple of a line, dst is aligned to one.
void stream_lines(std::byte* dst, const std::byte* src, size_t bytes) {
  for (size_t at = 0; at < bytes; at += kLine) {
    const auto* const from = reinterpret_cast<const __m128i*>(src + at);
    auto* const to = reinterpret_cast<__m128i*>(dst + at);
    const __m128i a = _mm_loadu_si128(from), b = _mm_loadu_si128(from + 1);
    const __m128i c = _mm_loadu_si128(from + 2), d = _mm_loadu_si128(from + 3);
    _mm_stream_si128(to, a);
    _mm_stream_si128(to + 1, b);
    _mm_stream_si128(to + 2, c);
    _mm_stream_si128(to + 3, d);
  }
  _mm_sfence();
}
#endif

}  // namespace

void copy_into(std::byte* dst, const std::byte* src, size_t bytes, Stores stores) {
#if defined(__x86_64__)
  if (stores == Stores::streaming && bytes >= kStreamedBytes) {
    const size_t head = (kLine - reinterpret_cast<uintptr_t>(dst) % kLine) % kLine,
                 lines = (bytes - head) / kLine * kLine;
    std::memcpy(dst, src, head);
    stream_lines(dst + head, src + head, lines);
    std::memcpy(dst + head + lines, src + head + lines, bytes - head - lines);
    return;
  }
#endif
  (void)stores;
  if (bytes) std::memcpy(dst, src, bytes);
}

}  // namespace pycoll
