// Spans of bytes: what transports move.
#pragma once
#include <cstddef>
#include <span>

namespace pycoll {

using Bytes = std::span<std::byte>;
using ConstBytes = std::span<const std::byte>;

}  // namespace pycoll
