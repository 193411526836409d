// A borrowed array: pointer, count of elements, element type. Owns nothing.
#pragma once
#include <cassert>
#include <cstddef>

#include "core/bytes.h"
#include "core/dtype.h"
#include "core/partition.h"

namespace pycoll {

template <class Byte>
struct BasicBuffer {
  Byte* data = nullptr;
  size_t count = 0;
  DType dtype = DType::u8;

  size_t bytes() const { return count * size_of(dtype); }
  std::span<Byte> span() const { return {data, bytes()}; }
  Byte* at(size_t element) const { return data + element * size_of(dtype); }
  BasicBuffer operator[](Range range) const {
    assert(range.end() <= count);
    return {at(range.begin), range.count, dtype};
  }
  operator BasicBuffer<const Byte>() const
    requires(!std::is_const_v<Byte>)
  {
    return {data, count, dtype};
  }
};

using Buffer = BasicBuffer<std::byte>;
using ConstBuffer = BasicBuffer<const std::byte>;

}  // namespace pycoll
