// Keys as bytes, and the two orders that records are kept in: by hash, or by key. Both begin with a token of 64 bits,
// so that most comparisons look at no key at all.
#pragma once
#include <bit>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace pycoll::records {

// What a key was in Python. Keys of different types are different keys.
enum class KeyType : uint8_t { text, bytes, whole, real, tuple };
constexpr int kKeyTypes = 5;
constexpr const char* kTypeNames[kKeyTypes] = {"str", "bytes", "int", "float", "tuple"};
inline const char* name_of(KeyType type) {
  return kTypeNames[static_cast<int>(type)];
}

struct Key {
  std::string_view bytes;
  KeyType type = KeyType::text;
  bool operator==(const Key&) const = default;
};

enum class Order : uint8_t { hash, key };

inline uint64_t load8(const char* p) {
  uint64_t x;
  std::memcpy(&x, p, sizeof x);
  return x;
}
inline uint32_t load4(const char* p) {
  uint32_t x;
  std::memcpy(&x, p, sizeof x);
  return x;
}

// The two halves of a product of 128 bits, folded: every bit of the result depends on all bits of both.
inline uint64_t mix(uint64_t a, uint64_t b) {
  const auto product = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

// The same on every rank: ranks are of one byte order, as everywhere in pycoll.
inline uint64_t hash_of(const Key& key) {
  constexpr uint64_t kOdd[] = {0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9};
  const char* p = key.bytes.data();
  size_t left = key.bytes.size();
  uint64_t h = kOdd[0] ^ (left << 3) ^ static_cast<uint64_t>(key.type);
  for (; left > 16; p += 16, left -= 16) h = mix(load8(p) ^ kOdd[1], load8(p + 8) ^ h);
  uint64_t a = 0, b = 0;
  if (left >= 8) {
    a = load8(p);
    b = load8(p + left - 8);
  } else if (left >= 4) {
    a = load4(p);
    b = load4(p + left - 4);
  } else if (left > 0) {
    a = uint64_t(uint8_t(p[0])) << 16 | uint64_t(uint8_t(p[left / 2])) << 8 | uint8_t(p[left - 1]);
  }
  return mix(mix(a ^ kOdd[1], b ^ h), kOdd[2] ^ h);
}

inline uint64_t first_bytes(std::string_view bytes) {
  uint64_t x = 0;
  std::memcpy(&x, bytes.data(), bytes.size() < 8 ? bytes.size() : 8);
  if constexpr (std::endian::native == std::endian::little) x = __builtin_bswap64(x);
  return x;
}

inline uint64_t token_of(Order order, const Key& key) {
  return order == Order::hash ? hash_of(key) : first_bytes(key.bytes);
}

// Of keys whose tokens are equal.
inline bool behind_token(const Key& a, const Key& b) {
  const int difference = a.bytes.compare(b.bytes);
  return difference ? difference < 0 : a.type < b.type;
}

// Records in order of hash lie in so many buckets; a bucket goes to one rank as a whole.
constexpr int kBuckets = 1024;
constexpr int bucket_of(uint64_t hash) {
  return static_cast<int>(hash >> 54);
}
static_assert(bucket_of(~uint64_t{0}) == kBuckets - 1);

}  // namespace pycoll::records
