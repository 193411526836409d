#include "records/value.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/error.h"
#include "records/varint.h"

namespace pycoll::records {

void fold_into(Fold fold, Number& acc, Number x) {
  if (acc.real || x.real) {
    const double a = acc.as_double(), b = x.as_double();
    if (fold == Fold::sum || std::isnan(a) || std::isnan(b))  // NaN is the least and the most as well, in any order
      acc = Number::of(a + b);
    else
      acc = Number::of(fold == Fold::min ? std::min(a, b) : std::max(a, b));
  } else if (fold == Fold::sum) {
    PYCOLL_CHECK(!__builtin_add_overflow(acc.whole, x.whole, &acc.whole),
                 "mapreduce: a sum of whole numbers leaves 64 bits; emit floats, or reduce with a function");
  } else {
    acc.whole = fold == Fold::min ? std::min(acc.whole, x.whole) : std::max(acc.whole, x.whole);
  }
}

void put_number(std::string& to, Number x) {
  if (x.real) {
    to += 'f';
    to.append(reinterpret_cast<const char*>(&x.value), sizeof x.value);
  } else {
    to += 'i';
    put_varint(to, zigzag(x.whole));
  }
}

Number take_number(std::string_view value) {
  if (value.size() == 1 + sizeof(double) && value[0] == 'f') {
    double x;
    std::memcpy(&x, value.data() + 1, sizeof x);
    return Number::of(x);
  }
  PYCOLL_CHECK_AS(TransportError, !value.empty() && value[0] == 'i', "mapreduce: a value is not a number");
  const char* p = value.data() + 1;
  return Number::of(zagzig(take_varint(p, value.data() + value.size())));
}

std::string_view IdSet::parts(std::string_view value, uint64_t& last) {
  PYCOLL_CHECK_AS(TransportError, !value.empty() && value[0] == 'd', "mapreduce: a value is not a set of numbers");
  const char *p = value.data() + 1, *end = value.data() + value.size();
  last = take_varint(p, end);
  return {p, size_t(end - p)};
}

template <class Id>
void IdSet::take(std::string_view value, std::vector<Id>& to) {
  constexpr size_t kLarge = 1 << 16;  // numbers; below it a vector's growth is cheaper than counting
  uint64_t id = ~uint64_t{0}, last;
  const std::string_view differences = parts(value, last);
  const char *p = differences.data(), *const end = p + differences.size();
  if (differences.size() > kLarge)
    to.reserve(to.size() + size_t(std::count_if(p, end, [](char c) { return !(c & 0x80); })));
  while (p < end) to.push_back(Id(id += take_varint(p, end)));
}
template void IdSet::take(std::string_view, std::vector<uint64_t>&);
template void IdSet::take(std::string_view, std::vector<int64_t>&);

void IdSet::clear() {
  differences_.clear();
  last_ = ~uint64_t{0};
}

void IdSet::add(std::string_view value) {
  uint64_t last;
  const std::string_view differences = parts(value, last);
  if (differences.empty()) return;
  const char *p = differences.data(), *end = p + differences.size();
  const uint64_t first = take_varint(p, end) - 1;
  if (differences_.empty() || first > last_) {
    put_varint(differences_, first - last_);
    differences_.append(p, end);
    last_ = last;
    return;
  }
  std::vector<uint64_t> ids;
  std::string both;
  put(both);
  take(both, ids);
  const auto middle = std::ptrdiff_t(ids.size());
  take(value, ids);
  std::inplace_merge(ids.begin(), ids.begin() + middle, ids.end());
  both.clear();
  put_set_of(both, ids);
  differences_ = parts(both, last_);
}

void IdSet::put(std::string& to) const {
  put_set_of(to, last_, differences_);
}

void put_set_of(std::string& to, uint64_t last, std::string_view differences) {
  to += 'd';
  put_varint(to, last);
  to += differences;
}

void put_set_of(std::string& to, const std::vector<uint64_t>& ids) {
  to += 'd';
  put_varint(to, ids.empty() ? ~uint64_t{0} : ids.back());
  uint64_t before = ~uint64_t{0};
  for (const uint64_t id : ids) {
    if (id == before) continue;
    put_varint(to, id - before);
    before = id;
  }
}

}  // namespace pycoll::records
