// The header in front of every payload. docs/wire.md says what each byte means.
#pragma once
#include <cstdint>

#include "core/bytes.h"

namespace pycoll::codec {

enum class CodecId : uint8_t { identity, cast, int8, int4, fp8, sign, topk, randomk };
inline constexpr int kCodecs = 8;

// What the numbers of a payload are written in.
enum class ValueFormat : uint8_t { f32, f16, bf16, int8, int4, e4m3, e5m2, bit };
inline constexpr int kValueFormats = 8;

struct WireHeader {
  uint32_t magic;      // kMagic
  uint8_t version;     // 1
  uint8_t codec;       // CodecId
  uint8_t format;      // ValueFormat
  uint8_t reserved;    // 0
  uint64_t count;      // elements when decoded
  uint64_t bytes;      // of the payload, which follows
  uint32_t parameter;  // elements a block; of topk and randomk: entries
  uint32_t check;      // checksum of the payload: kernels/checksum.h
};
static_assert(sizeof(WireHeader) == 32);
inline constexpr uint32_t kMagic = 0x57594350;  // "PCYW" in memory

}  // namespace pycoll::codec
