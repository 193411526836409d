// Sparse payloads: the entries of an array that are not zero, at 2 bytes an index.
//
// A payload is, little-endian:
//   u32 entries of each block of 65536 elements, ceil(count / 65536) of them; zero bytes up to a multiple of 16
//   the values of all entries in order (values.h); zero bytes up to a multiple of 2
//   u16 offset of each entry inside its block, strictly ascending in a block
// Where that would be longer than the array itself, the wire is an identity (f32 of all elements) instead.
#pragma once
#include <cstdint>
#include <span>
#include <string>

#include "codec/values.h"
#include "codec/wire.h"

namespace pycoll::codec {

inline constexpr size_t kSparseBlock = kernels::SparseLayout::kBlock;

// Bytes of header and payload for `entries` entries among `count` elements.
size_t sparse_most_bytes(size_t count, size_t entries, ValueFormat format);

// Writes header and payload of the elements [first, first + count) of an array of which `index` (ascending, all in
// that range) and `value` are the entries. `wire` has sparse_most_bytes(). Returns the bytes written.
size_t sparse_encode(const uint32_t* index, const float* value, size_t entries, uint32_t first, size_t count,
                     ValueFormat format, CodecId id, Bytes wire);
// For error feedback: value[i] becomes value[i] - what `wire`, which sparse_encode just wrote of these entries, carries
// of it; 0 where that is not finite.
void sparse_lost(float* value, size_t entries, ConstBytes wire);

// The following read what sparse_encode wrote, identities among them, and the checksum has been compared. They raise
// TransportError, before they write anything, if the payload contradicts itself or the header; `source` says where it
// came from: "from rank 3".

// out = what the wire says, 0 where it says nothing; acc += what the wire says. As long as header.count.
void sparse_into(std::span<float> out, const WireHeader& header, ConstBytes payload, const std::string& source);
void sparse_add(std::span<float> acc, const WireHeader& header, ConstBytes payload, const std::string& source);

// The entries, indices counted from `first` of sparse_encode; of an identity, those that are not +0. `index` and
// `value` have room for sparse_room(). Returns their number.
size_t sparse_room(const WireHeader& header);
size_t sparse_entries(const WireHeader& header, ConstBytes payload, uint32_t* index, float* value,
                      const std::string& source);

}  // namespace pycoll::codec
