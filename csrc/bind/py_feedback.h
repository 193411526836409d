// Codecs and error feedback as Python holds them.
#pragma once
#include <pybind11/pybind11.h>

#include <memory>
#include <optional>

#include "bind/borrow.h"
#include "codec/codec.h"
#include "codec/feedback.h"

namespace pycoll::bind {

struct PyFeedback {
  codec::Feedback state;
  std::optional<Borrowed> array;  // holds the residual's memory

  // residual: an array of f32 or bf16, or None.
  explicit PyFeedback(const py::object& residual);
};

// The encoder behind a codec of pycoll.codec: its attribute `core`. Raises InvalidArgument for anything else.
std::shared_ptr<codec::Codec> codec_of(const py::object& codec, const char* operation);

}  // namespace pycoll::bind
