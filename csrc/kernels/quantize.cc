// Hands every call to the body of the instruction set in use.
#include "kernels/quantize.h"

#include <array>
#include <bit>
#include <cassert>
#include <cstring>

#include "kernels/quantize_table.h"
#include "kernels/simd.h"

namespace pycoll::kernels {
namespace {

constexpr size_t kBits[kGrids] = {8, 4, 8, 8, 1};

[[maybe_unused]] bool is_block(uint32_t block) {
  return std::has_single_bit(block) && block >= kLeastBlock && block <= kMostBlock;
}

Half half_of(DType dtype) {
  assert(is_half(dtype));
  return dtype == DType::f16 ? Half::f16 : Half::bf16;
}

}  // namespace

const QuantizeTable& quantize_table() {
  static const std::array<const QuantizeTable*, 3> tables = {scalar_quantize_table(), avx2_quantize_table(),
                                                             avx512_quantize_table()};
  return pick(tables);
}

size_t scale_bytes(uint32_t block, size_t count) {
  return ((count + block - 1) / block * 4 + 15) / 16 * 16;
}

size_t quantized_bytes(Grid grid, uint32_t block, size_t count) {
  return scale_bytes(block, count) + (count * kBits[int(grid)] + 7) / 8;
}

void quantize(const Quantizer& how, const float* in, float* residual, size_t count, std::byte* payload) {
  assert(is_block(how.block));
  if (count == 0) return;  // payload may be null
  const size_t scales = (count + how.block - 1) / how.block * 4, padded = scale_bytes(how.block, count);
  std::memset(payload + scales, 0, padded - scales);
  quantize_table().quantize[int(how.grid)]({how, in, residual, count, payload, payload + padded});
}

void dequantize_into(Grid grid, uint32_t block, float* out, const std::byte* payload, size_t count) {
  assert(is_block(block));
  quantize_table().into[int(grid)]({block, out, count, payload, payload + scale_bytes(block, count)});
}

void dequantize_add(Grid grid, uint32_t block, float* acc, const std::byte* payload, size_t count) {
  assert(is_block(block));
  quantize_table().add[int(grid)]({block, acc, count, payload, payload + scale_bytes(block, count)});
}

void halve(DType half, const float* in, float* residual, size_t count, std::byte* halves) {
  quantize_table().halve[int(half_of(half))](in, residual, count, halves);
}

void halves_add(DType half, float* acc, const std::byte* halves, size_t count) {
  quantize_table().halves_add[int(half_of(half))](acc, halves, count);
}

}  // namespace pycoll::kernels
