// What all CUDA kernels share: streams, errors, and memory of a device. No CUDA types here.
#pragma once
#include <cstddef>

#include "core/bytes.h"

namespace pycoll::kernels::cuda {

using Stream = void*;  // a cudaStream_t; null is the default stream

// Raises DeviceError unless `error` (a cudaError_t) is success, naming what is missing where there is no driver or
// device.
void check(int error, const char* call);

int device_count();
int runtime_version();  // as CUDA counts: 13000 is 13.0

// Enough blocks of 256 threads to fill every multiprocessor of the current device (2048 threads each).
unsigned most_blocks();

// The device that has this memory; -1 if none has.
int device_of(const void* memory);

// Copies to the host and waits for the stream.
void read(void* to, const void* from, size_t bytes, Stream stream);

// Makes the device that has this memory the current one, and puts back which one was.
class DeviceOf {
 public:
  explicit DeviceOf(const void* memory);
  DeviceOf(const DeviceOf&) = delete;
  DeviceOf& operator=(const DeviceOf&) = delete;
  ~DeviceOf();

 private:
  int before_ = 0;
};

// Memory of the current device for what is enqueued on a stream while this lives.
class Temporary {
 public:
  Temporary(size_t bytes, Stream stream);
  Temporary(const Temporary&) = delete;
  Temporary& operator=(const Temporary&) = delete;
  ~Temporary();
  std::byte* data() const { return static_cast<std::byte*>(data_); }  // aligned to 256

 private:
  void* data_ = nullptr;
  Stream stream_;
};

// Memory of the device that was current when it grew; kept from call to call.
class Memory {
 public:
  Memory() = default;
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory();
  // At least `bytes` bytes, aligned to 256. Growing waits for the device and forgets what was there; then it is zero.
  std::byte* get(size_t bytes);
  size_t capacity() const { return capacity_; }

 private:
  std::byte* data_ = nullptr;
  size_t capacity_ = 0;
};

}  // namespace pycoll::kernels::cuda

#define PYCOLL_CUDA(call) ::pycoll::kernels::cuda::check((call), #call)
