// What kernels/device_cuda.h promises, of the host's memory.
#include <cstring>

#include "kernels/device_cuda.h"

namespace pycoll::kernels::cuda {

void read(void* to, const void* from, size_t bytes, Stream) {
  std::memcpy(to, from, bytes);
}

Temporary::Temporary(size_t bytes, Stream stream) : data_(new std::byte[bytes]), stream_(stream) {
  std::memset(data_, 0x5a, bytes);
}
Temporary::~Temporary() {
  delete[] static_cast<std::byte*>(data_);
}

}  // namespace pycoll::kernels::cuda
