#include "records/key_coding.h"

#include <bit>
#include <cmath>

#include "core/error.h"

namespace pycoll::records {
namespace {

constexpr uint64_t kSign = uint64_t{1} << 63;

void put_big_endian(std::string& to, uint64_t x) {
  for (int shift = 56; shift >= 0; shift -= 8) to += static_cast<char>(x >> shift);
}
uint64_t big_endian(std::string_view bytes) {
  PYCOLL_CHECK_AS(TransportError, bytes.size() == 8, "mapreduce: a number as key has ", bytes.size(),
                  " bytes, wanted 8");
  return first_bytes(bytes);
}

}  // namespace

void put_whole_key(std::string& to, int64_t x) {
  put_big_endian(to, uint64_t(x) ^ kSign);
}
int64_t whole_key(std::string_view bytes) {
  return int64_t(big_endian(bytes) ^ kSign);
}

void put_real_key(std::string& to, double x) {
  const auto bits = std::bit_cast<uint64_t>(std::isnan(x) ? std::abs(x) : x + 0.0);
  put_big_endian(to, bits & kSign ? ~bits : bits | kSign);
}
double real_key(std::string_view bytes) {
  const uint64_t x = big_endian(bytes);
  return std::bit_cast<double>(x & kSign ? x & ~kSign : ~x);
}

void put_member(std::string& to, const Key& member) {
  to += static_cast<char>(member.type);
  if (member.type == KeyType::whole || member.type == KeyType::real) {
    to += member.bytes;
    return;
  }
  for (const char c : member.bytes) {
    to += c;
    if (c == 0) to += '\xff';
  }
  to += '\0';
  to += '\1';
}

Key take_member(std::string_view& tuple, std::string& room) {
  const auto type = static_cast<KeyType>(tuple[0]);
  room.clear();
  size_t end = 1;
  if (type == KeyType::whole || type == KeyType::real) {
    end += 8;
    PYCOLL_CHECK_AS(TransportError, end <= tuple.size(), "mapreduce: a tuple as key is not whole");
    room = tuple.substr(1, 8);
  } else {
    while (true) {
      PYCOLL_CHECK_AS(TransportError, end + 1 < tuple.size(), "mapreduce: a tuple as key is not whole");
      const char c = tuple[end];
      if (c == 0 && tuple[end + 1] == '\1') break;
      room += c;
      end += c == 0 ? 2 : 1;
    }
    end += 2;
  }
  tuple.remove_prefix(end);
  return {room, type};
}

}  // namespace pycoll::records
