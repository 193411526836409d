// The bodies behind quantize.h and checksum.h: one table of functions per instruction set.
#pragma once
#include "kernels/quantize.h"

namespace pycoll::kernels {

struct Quantization {
  Quantizer how;
  const float* in;
  float* residual;
  size_t count;
  std::byte *scales, *codes;
};

struct Dequantization {
  uint32_t block;
  float* out;  // or what is added to
  size_t count;
  const std::byte *scales, *codes;
};

enum class Half : uint8_t { f16, bf16 };

struct QuantizeTable {
  void (*quantize[kGrids])(const Quantization&);
  void (*into[kGrids])(const Dequantization&);
  void (*add[kGrids])(const Dequantization&);
  void (*halve[2])(const float* in, float* residual, size_t count, std::byte* halves);  // by Half
  void (*halves_add[2])(float* acc, const std::byte* halves, size_t count);
  uint32_t (*mixed_sum)(const std::byte* part, size_t bytes, uint32_t first);
};

// Null if not compiled in. Whether this processor can run it is the caller's question.
const QuantizeTable* scalar_quantize_table();
const QuantizeTable* avx2_quantize_table();
const QuantizeTable* avx512_quantize_table();

// The best one that may be used.
const QuantizeTable& quantize_table();

}  // namespace pycoll::kernels
