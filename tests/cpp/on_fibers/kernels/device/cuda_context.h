// Found before csrc's where *_cuda.cu are compiled for fibers: a stream is the seed of the order of lanes.
#pragma once
#include <algorithm>

#include "kernels/device/fibers.h"
#include "kernels/device_cuda.h"

namespace pycoll::kernels::device {
namespace {

class Machine {
 public:
  explicit Machine(cuda::Stream stream) : seed_(reinterpret_cast<uintptr_t>(stream)) {}

  uint32_t fill() const { return 3; }
  void zero(std::byte* memory, size_t bytes) { std::fill_n(memory, bytes, std::byte{0}); }
  template <class Body>
  void run(uint64_t blocks, const Body& body) {
    run_on_fibers(uint32_t(blocks), seed_, [&](fibers::Thread& on) { body(on); });
  }

 private:
  uint64_t seed_;
};

}  // namespace
}  // namespace pycoll::kernels::device
