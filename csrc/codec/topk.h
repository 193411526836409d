// The largest elements, by kernels/topk.h, as a sparse payload.
#pragma once
#include <cstddef>
#include <memory>

#include "codec/codec.h"

namespace pycoll::codec {

struct TopK {
  double ratio = 0.01;                    // of the elements of what is encoded, rounded up: above 0, at most 1
  size_t k = 0;                           // so many instead, if not 0
  bool exact = false;                     // select_topk instead of select_near
  ValueFormat format = ValueFormat::f32;  // values.h
};

// Raises InvalidArgument.
std::unique_ptr<Codec> make(const TopK& topk);

}  // namespace pycoll::codec
