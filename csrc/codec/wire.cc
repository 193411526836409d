#include "codec/wire.h"

#include <cstring>

#include "kernels/checksum.h"

namespace pycoll::codec {

uint32_t check_of(WireHeader header, uint32_t payload_checksum) {
  header.check = 0;
  return payload_checksum + kernels::checksum(std::as_bytes(std::span(&header, 1)));
}

size_t seal(Bytes wire, WireHeader header, uint32_t payload_checksum) {
  header.check = check_of(header, payload_checksum);
  std::memcpy(wire.data(), &header, sizeof(header));
  return sizeof(header) + header.bytes;
}

}  // namespace pycoll::codec
