// The Context on CUDA, and kernels of bodies on a stream. For nvcc, in *_cuda.cu.
#pragma once
#include "kernels/device/context.h"
#include "kernels/device_cuda.h"

namespace pycoll::kernels::device {
namespace {

class CudaThread {
 public:
  __device__ uint32_t block() const { return blockIdx.x; }
  __device__ uint32_t blocks() const { return gridDim.x; }
  __device__ uint32_t thread() const { return threadIdx.x; }
  __device__ void sync() { __syncthreads(); }
  template <class T>
  __device__ T shuffle(T value, uint32_t lane) {
    return __shfl_sync(~0u, value, int(lane));
  }
  __device__ uint32_t ballot(bool flag) { return __ballot_sync(~0u, flag); }
  __device__ uint32_t max(uint32_t value) { return __reduce_max_sync(~0u, value); }
  __device__ uint32_t sum(uint32_t value) { return __reduce_add_sync(~0u, value); }
  __device__ uint32_t add(uint32_t* at, uint32_t value) { return atomicAdd(at, value); }
  __device__ uint64_t load(const uint64_t* at) { return *static_cast<const volatile uint64_t*>(at); }
  __device__ void store(uint64_t* at, uint64_t value) { *static_cast<volatile uint64_t*>(at) = value; }
  __device__ void fence() { __threadfence(); }
  __device__ void relax() { __nanosleep(32); }
  template <class T>
  __device__ T& shared() {
    __shared__ T object;
    return object;
  }
};
static_assert(Context<CudaThread>);

template <class Body>
__global__ void __launch_bounds__(kThreads) run_body(const Body body) {
  CudaThread on;
  body(on);
}

// Kernels one after the other on a stream.
class Machine {
 public:
  explicit Machine(cuda::Stream stream) : stream_(static_cast<cudaStream_t>(stream)) {}

  uint32_t fill() const { return cuda::most_blocks(); }
  void zero(std::byte* memory, size_t bytes) { PYCOLL_CUDA(cudaMemsetAsync(memory, 0, bytes, stream_)); }
  template <class Body>
  void run(uint64_t blocks, const Body& body) {
    if (blocks == 0) return;
    run_body<<<unsigned(blocks), kThreads, 0, stream_>>>(body);
    PYCOLL_CUDA(cudaGetLastError());
  }

 private:
  cudaStream_t stream_;
};

}  // namespace
}  // namespace pycoll::kernels::device
