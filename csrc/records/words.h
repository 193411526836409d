// Words of a text: what lies between white space (space and \t \n \v \f \r).
#pragma once
#include <cstdint>
#include <cstring>
#include <string_view>

namespace pycoll::records {

constexpr bool is_space(char c) {
  return c == ' ' || uint8_t(c - '\t') < 5;
}

// Bit i: whether text[i] is white space.
inline uint64_t spaces_of_64(const char* text) {
  uint8_t is[64];
  for (int i = 0; i < 64; ++i) is[i] = is_space(text[i]) ? 1 : 0;
  uint64_t mask = 0;
  for (int i = 0; i < 8; ++i) {  // eight bytes of 0 or 1 to eight bits
    uint64_t eight;
    std::memcpy(&eight, is + 8 * i, sizeof eight);
    mask |= (eight * 0x0102040810204080 >> 56) << 8 * i;
  }
  return mask;
}

// Calls use(word) for each word. What it returns is not looked at.
template <class Use>
void for_words(std::string_view text, Use use) {
  const char *begin = text.data(), *end = begin + text.size();
  const char* word = begin;  // where the word that has begun, or that may begin next, begins
  const char* p = begin;
  for (; end - p >= 64; p += 64) {
    for (uint64_t spaces = spaces_of_64(p); spaces; spaces &= spaces - 1) {
      const char* space = p + __builtin_ctzll(spaces);
      if (space > word) use(std::string_view(word, size_t(space - word)));
      word = space + 1;
    }
  }
  for (; p < end; ++p) {
    if (!is_space(*p)) continue;
    if (p > word) use(std::string_view(word, size_t(p - word)));
    word = p + 1;
  }
  if (end > word) use(std::string_view(word, size_t(end - word)));
}

}  // namespace pycoll::records
