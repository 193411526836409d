// The header in front of every payload. docs/wire.md says what each byte means.
#pragma once
#include <cstdint>

#include "core/bytes.h"
#include "kernels/values.h"

namespace pycoll::codec {

enum class CodecId : uint8_t { identity, cast, int8, int4, fp8, sign, topk, randomk };
inline constexpr int kCodecs = 8;

using kernels::kValueFormats;
using kernels::ValueFormat;  // what the numbers of a payload are written in

inline constexpr uint32_t kMagic = 0x57594350;  // "PCYW" in memory
inline constexpr uint8_t kVersion = 1;

struct WireHeader {
  uint32_t magic = kMagic;
  uint8_t version = kVersion;
  uint8_t codec = 0;       // CodecId
  uint8_t format = 0;      // ValueFormat
  uint8_t reserved = 0;    // 0
  uint64_t count = 0;      // elements when decoded
  uint64_t bytes = 0;      // of the payload, which follows
  uint32_t parameter = 0;  // elements a block; of topk and randomk: entries
  uint32_t check = 0;      // kernels/checksum.h: that of the payload plus that of this header with check = 0
};
static_assert(sizeof(WireHeader) == 32);

inline ConstBytes payload_of(const WireHeader& header, ConstBytes wire) {
  return wire.subspan(sizeof(WireHeader), header.bytes);
}

// The value of `check` for this header.
uint32_t check_of(WireHeader header, uint32_t payload_checksum);

// What encoders end with: writes `header`, check filled in, in front of the payload, whose checksum is given. Returns
// the bytes of the wire.
size_t seal(Bytes wire, WireHeader header, uint32_t payload_checksum);

}  // namespace pycoll::codec
