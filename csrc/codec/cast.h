// Codecs without blocks: f32 as it is, f16, bf16. blocks.h is the way to them.
#pragma once
#include <memory>
#include <span>

#include "codec/blocks.h"

namespace pycoll::codec {

std::unique_ptr<Dense> make_cast(ValueFormat format);
size_t cast_bytes(ValueFormat format, size_t count);
void cast_into(std::span<float> out, ValueFormat format, ConstBytes payload);
void cast_add(std::span<float> acc, ValueFormat format, ConstBytes payload);

}  // namespace pycoll::codec
