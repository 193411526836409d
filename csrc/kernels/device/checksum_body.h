// The checksum of checksum.h on a device, and the header that it belongs to.
#pragma once
#include <cstddef>

#include "kernels/device/context.h"
#include "kernels/header.h"

namespace pycoll::kernels::device {

PYCOLL_DEVICE uint32_t mixed(uint32_t word, uint64_t position) {
  uint32_t x = word + uint32_t(position) * 0x9e3779b1u;
  x = (x ^ (x >> 16)) * 0x85ebca6bu;
  x = (x ^ (x >> 13)) * 0xc2b2ae35u;
  return x ^ (x >> 16);
}

// What this thread's share of the words adds.
template <class C>
PYCOLL_DEVICE uint32_t mixed_share(C& on, const std::byte* data, uint64_t bytes) {
  struct alignas(16) Words {
    uint32_t word[4];
  };
  const uint64_t stride = uint64_t(on.blocks()) * kThreads, self = uint64_t(on.block()) * kThreads + on.thread();
  const uint64_t packs = reinterpret_cast<uintptr_t>(data) % sizeof(Words) == 0 ? bytes / sizeof(Words) : 0;
  uint32_t sum = 0;
  for (uint64_t i = self; i < packs; i += stride) {
    const Words words = reinterpret_cast<const Words*>(data)[i];
    PYCOLL_UNROLL
    for (uint32_t w = 0; w < 4; ++w) sum += mixed(words.word[w], i * 4 + w);
  }
  const uint64_t words = (bytes + 3) / 4;
  for (uint64_t i = packs * 4 + self; i < words; i += stride) {
    uint32_t word = 0;
    for (uint64_t b = 0; b < 4 && i * 4 + b < bytes; ++b) word |= uint32_t(data[i * 4 + b]) << (8 * b);
    sum += mixed(word, i);
  }
  return sum;
}

// A header that the host knows.
struct Known {
  Header header;
  PYCOLL_DEVICE Header operator()() const { return header; }
};

// The header at `to`, in front of its payload; `says()` is that header. Until all blocks have been here, its first word
// is the sum and its second one their number: both are 0 before the kernel.
template <class Says>
struct Seal {
  uint32_t* to;
  Says says;

  template <class C>
  PYCOLL_DEVICE void operator()(C& on) const {
    const Header header = says();
    const auto* const payload = reinterpret_cast<const std::byte*>(to + Header::kWords);
    const uint32_t sum = on.sum(mixed_share(on, payload, header.bytes()));
    if (lane(on) == 0) on.add(to, sum);
    if (!last_block(on, to + 1) || on.thread() != 0) return;
    uint32_t check = on.add(to, 0) + uint32_t(header.bytes()) + uint32_t(sizeof(Header));
    for (uint32_t w = 0; w < Header::kWords; ++w) {
      const uint32_t word = w + 1 < Header::kWords ? header.word[w] : 0;
      check += mixed(word, w);
      to[w] = word;
    }
    to[Header::kWords - 1] = check;
  }
};

// Seals a wire whose payload has at most `bytes` bytes.
template <class Machine, class Says>
void seal(Machine& machine, std::byte* wire, uint64_t bytes, const Says& says) {
  machine.zero(wire, sizeof(Header));
  const uint64_t blocks = bytes / (16 * kThreads) + 1, most = machine.fill();
  machine.run(blocks < most ? blocks : most, Seal<Says>{reinterpret_cast<uint32_t*>(wire), says});
}

}  // namespace pycoll::kernels::device
