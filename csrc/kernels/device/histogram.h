// The k-th largest of many magnitudes, digit by digit: how many have which, and which one the k-th has.
#pragma once
#include "kernels/device/context.h"
#include "kernels/element.h"

namespace pycoll::kernels::device {

inline constexpr uint32_t kBins = 2048;  // of a digit of at most 11 bits

PYCOLL_DEVICE uint32_t topk_size(float x) {
  return as<uint32_t>(x) & 0x7fffffffu;
}

// Bits `shift` and up, `width` of them, of sizes whose bits above are `prefix`.
struct Digit {
  uint32_t prefix, shift, width;

  PYCOLL_DEVICE bool has(uint32_t size) const { return size >> shift >> width == prefix; }
  PYCOLL_DEVICE uint32_t of(uint32_t size) const { return (size >> shift) & ((1u << width) - 1); }
  PYCOLL_DEVICE uint32_t upto(uint32_t digit) const { return prefix << width | digit; }
};

// Shared memory of histogram.
struct Histogram {
  uint32_t bin[kBins];
};

// Adds to `bins` how many of `count` values have each digit.
template <class C, class Value>
PYCOLL_DEVICE void histogram(C& on, uint32_t* bins, const Digit& digit, uint64_t count, Value value) {
  Histogram& local = on.template shared<Histogram>();
  for (uint32_t d = on.thread(); d < kBins; d += kThreads) local.bin[d] = 0;
  on.sync();
  const uint64_t stride = uint64_t(on.blocks()) * kThreads;
  for (uint64_t i = uint64_t(on.block()) * kThreads + on.thread(); i < count; i += stride) {
    const uint32_t size = topk_size(value(i));
    if (digit.has(size)) on.add(&local.bin[digit.of(size)], 1);
  }
  on.sync();
  for (uint32_t d = on.thread(); d < 1u << digit.width; d += kThreads)
    if (local.bin[d]) on.add(bins + d, local.bin[d]);
}

// Shared memory of pick.
struct Picked {
  uint32_t digit, above;
};

// By one block: the digit of the `wanted`-th largest value, and how many have a larger one.
template <class C>
PYCOLL_DEVICE Picked pick(C& on, uint32_t* bins, uint32_t wanted) {
  constexpr uint32_t each = kBins / kThreads;
  Picked& picked = on.template shared<Picked>();
  uint32_t own = 0;
  const uint32_t top = kBins - 1 - on.thread() * each;
  for (uint32_t d = 0; d < each; ++d) own += on.add(bins + (top - d), 0);
  uint32_t above = scan_block(on, own) - own;
  if (above < wanted && wanted <= above + own) {
    uint32_t digit = top;
    for (uint32_t count; above + (count = on.add(bins + digit, 0)) < wanted; --digit) above += count;
    picked = {digit, above};
  }
  on.sync();
  return picked;
}

}  // namespace pycoll::kernels::device
