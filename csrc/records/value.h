// Values as bytes, and how values of one key are folded into one. The first byte says what a value is:
//   n nothing   i whole number, zigzag varint   f double, 8 bytes   s text   b bytes   p pickled
//   d set of whole numbers: its last as varint, then differences (from -1 on) as varints
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace pycoll::records {

enum class Fold : uint8_t { none, sum, min, max, set };

constexpr bool folds_numbers(Fold fold) {
  return fold == Fold::sum || fold == Fold::min || fold == Fold::max;
}

// A whole number, or a double once one of those folded into it was.
struct Number {
  bool real = false;
  union {
    int64_t whole = 0;
    double value;
  };
  static Number of(int64_t x) {
    Number n;
    n.whole = x;
    return n;
  }
  static Number of(double x) {
    Number n;
    n.real = true;
    n.value = x;
    return n;
  }
  double as_double() const { return real ? value : double(whole); }
};

// Raises if a sum of whole numbers leaves 64 bits.
void fold_into(Fold fold, Number& acc, Number x);

void put_number(std::string& to, Number x);
Number take_number(std::string_view value);

// Values of kind d: of what it is made of, and of numbers that ascend, of which equal ones are put once.
void put_set_of(std::string& to, uint64_t last, std::string_view differences);
void put_set_of(std::string& to, const std::vector<uint64_t>& ids);

// Whole numbers, ascending and distinct, below 2^63.
class IdSet {
 public:
  // Folds a value of kind d in. Cheap where all its numbers are above those already there.
  void add(std::string_view value);
  void put(std::string& to) const;
  void clear();

  // The numbers of a value, appended. A large set takes the memory that it needs, and no more.
  template <class Id>
  static void take(std::string_view value, std::vector<Id>& to);
  // `last` of a value, and the differences behind it.
  static std::string_view parts(std::string_view value, uint64_t& last);

 private:
  std::string differences_;
  uint64_t last_ = ~uint64_t{0};
};

}  // namespace pycoll::records
