// Numbers of sparse payloads in a format: f32; f16 and bf16; int8 and int4 as kernels/quantize.h writes them, with one
// scale for 256 and 128 values.
#pragma once
#include <string>

#include "codec/wire.h"

namespace pycoll::codec {

bool is_value_format(ValueFormat format);
const char* name_of(ValueFormat format);

using kernels::values_bytes;
void write_values(std::byte* to, ValueFormat format, const float* values, size_t count);
// `from` has values_bytes(); nothing that is there makes this fail.
void read_values(float* values, ValueFormat format, const std::byte* from, size_t count);
// For error feedback: values becomes values - what `from` says, and 0 where that is not finite.
void subtract_values(float* values, ValueFormat format, const std::byte* from, size_t count);

}  // namespace pycoll::codec
