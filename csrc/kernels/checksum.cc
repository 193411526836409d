#include "kernels/checksum.h"

#include "kernels/quantize_table.h"

namespace pycoll::kernels {

uint32_t mixed_sum(ConstBytes part, uint32_t first) {
  return quantize_table().mixed_sum(part.data(), part.size(), first);
}

uint32_t checksum(ConstBytes bytes) {
  return uint32_t(bytes.size()) + mixed_sum(bytes, 0);
}

}  // namespace pycoll::kernels
