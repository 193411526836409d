// What every decoder does first: nothing is believed that the header says before it has been compared with what it must
// be, and no payload before its checksum.
#include <cstring>

#include "codec/blocks.h"
#include "codec/codec.h"
#include "codec/randomk.h"
#include "codec/sparse.h"
#include "core/error.h"
#include "kernels/checksum.h"

namespace pycoll::codec {
namespace {

bool is_sparse(const WireHeader& header) {
  return CodecId(header.codec) == CodecId::topk || CodecId(header.codec) == CodecId::randomk;
}

}  // namespace

#define PYCOLL_WANT(condition, ...) PYCOLL_CHECK_AS(TransportError, condition, "payload ", source, ": ", __VA_ARGS__)

void check_header(const WireHeader& header, size_t wire_bytes, size_t count, const std::string& source) {
  PYCOLL_WANT(header.magic == kMagic, "magic is ", header.magic, ", wanted ", kMagic);
  PYCOLL_WANT(header.version == kVersion, "version ", int(header.version), ", this build reads ", int(kVersion));
  PYCOLL_WANT(header.codec < kCodecs, "unknown codec ", int(header.codec));
  PYCOLL_WANT(header.format < kValueFormats, "unknown format ", int(header.format));
  PYCOLL_WANT(header.reserved == 0, "reserved byte is ", int(header.reserved), ", wanted 0");
  PYCOLL_WANT(header.count == count, "holds ", header.count, " elements, wanted ", count);
  if (!is_sparse(header)) {
    const size_t bytes = blocks_bytes(header, source);
    PYCOLL_WANT(header.bytes == bytes, "of ", header.bytes, " bytes, wanted ", bytes, " for ", count, " elements");
  }
  const size_t there = wire_bytes - sizeof(header);
  PYCOLL_WANT(header.bytes <= there, "cut off, ", there, " of ", header.bytes, " bytes");
}

WireHeader check(ConstBytes wire, size_t count, const std::string& source) {
  WireHeader header;
  PYCOLL_WANT(wire.size() >= sizeof(header), "cut off in the header, ", wire.size(), " of ", sizeof(header), " bytes");
  std::memcpy(&header, wire.data(), sizeof(header));
  check_header(header, wire.size(), count, source);
  const ConstBytes payload = payload_of(header, wire);
  const uint32_t computed = check_of(header, kernels::checksum(payload));
  PYCOLL_WANT(header.check == computed, "corrupted, checksum is ", computed, ", header says ", header.check);
  if (!is_sparse(header)) check_scales(header, payload, source);
  return header;
}

#undef PYCOLL_WANT

void decode_into(std::span<float> out, ConstBytes wire, const std::string& source) {
  const WireHeader header = check(wire, out.size(), source);
  const ConstBytes payload = payload_of(header, wire);
  switch (CodecId(header.codec)) {
    case CodecId::topk: return sparse_into(out, header, payload, source);
    case CodecId::randomk: return random_into(out, header, payload, source);
    default: return blocks_into(out, header, payload);
  }
}

void decode_add(std::span<float> acc, ConstBytes wire, const std::string& source) {
  const WireHeader header = check(wire, acc.size(), source);
  const ConstBytes payload = payload_of(header, wire);
  switch (CodecId(header.codec)) {
    case CodecId::topk: return sparse_add(acc, header, payload, source);
    case CodecId::randomk: return random_add(acc, header, payload, source);
    default: return blocks_add(acc, header, payload);
  }
}

}  // namespace pycoll::codec
