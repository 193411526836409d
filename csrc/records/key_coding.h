// Keys of one type, as bytes that are in the order of the keys.
#pragma once
#include <string>

#include "records/key.h"

namespace pycoll::records {

void put_whole_key(std::string& to, int64_t x);
int64_t whole_key(std::string_view bytes);
void put_real_key(std::string& to, double x);  // -0 is 0; NaN is above all
double real_key(std::string_view bytes);

// A tuple is its members behind one another, each its type and its key; text and bytes end with 0 1, and a 0 in them is
// written as 0 255, so that a shorter one comes first.
void put_member(std::string& to, const Key& member);
// Takes the first member off; text and bytes are unescaped into `room`.
Key take_member(std::string_view& tuple, std::string& room);

}  // namespace pycoll::records
