// A checksum of bytes that vectors and GPUs compute in any order. Finds accidents, not forgeries.
//
// The bytes are little-endian words of 32 bits, the last one padded with zero bytes. The checksum is their number plus
// the sum over all words, modulo 2^32, of fmix32(word + i * 0x9e3779b1), i being the word's position; fmix32 is the
// finalizer of MurmurHash3, a bijection, so every change of a single word is found.
#pragma once
#include <cstdint>

#include "core/bytes.h"

namespace pycoll::kernels {

uint32_t checksum(ConstBytes bytes);

// The sum alone, over words that begin at position `first`: parts add up. Only the last part may end within a word.
uint32_t mixed_sum(ConstBytes part, uint32_t first);

}  // namespace pycoll::kernels
