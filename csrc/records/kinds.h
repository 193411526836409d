// What records are: the types of their keys and the kinds of their values (see value.h).
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "records/key.h"

namespace pycoll::records {

class Kinds {
 public:
  void add(KeyType key, char value) {
    keys_ |= 1u << static_cast<int>(key);
    values_ |= 1u << (value & 31);
  }
  bool has(KeyType key) const { return keys_ >> static_cast<int>(key) & 1; }
  std::vector<std::string> keys() const {
    std::vector<std::string> names;
    for (int type = 0; type < kKeyTypes; ++type)
      if (has(KeyType(type))) names.emplace_back(kTypeNames[type]);
    return names;
  }
  std::string values() const {
    std::string kinds;
    for (char kind = 'a'; kind <= 'z'; ++kind)
      if (values_ >> (kind & 31) & 1) kinds += kind;
    return kinds;
  }

 private:
  uint32_t keys_ = 0, values_ = 0;  // bits
};

}  // namespace pycoll::records
