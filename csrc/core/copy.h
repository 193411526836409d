// Copies between memory of different cores: which stores to use is a question of the machine.
#pragma once
#include <cstddef>
#include <cstdint>

namespace pycoll {

// ordinary: through this core's caches, where the next reader fetches the lines from. streaming: past them
// (non-temporal), so that the reader finds them in memory: on processors whose cores do not share a cache that is many
// times faster.
enum class Stores : uint8_t { ordinary, streaming };

// dst = src; they do not overlap. Streaming stores are ordered before any store that follows.
void copy_into(std::byte* dst, const std::byte* src, size_t bytes, Stores stores);

}  // namespace pycoll
