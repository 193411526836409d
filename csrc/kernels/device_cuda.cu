#include <cuda_runtime_api.h>

#include "core/error.h"
#include "kernels/device_cuda.h"

namespace pycoll::kernels::cuda {
namespace {

std::string version_text(int version) {
  return concat(version / 1000, ".", version % 1000 / 10);
}

}  // namespace

void check(int code, const char* call) {
  const auto error = cudaError_t(code);
  if (error == cudaSuccess) return;
  cudaGetLastError();  // forget it, so that the next call is not blamed
  if (error == cudaErrorInsufficientDriver) {
    int driver = 0;
    cudaDriverGetVersion(&driver);
    PYCOLL_CHECK_AS(DeviceError, driver, "cuda: this machine has no NVIDIA driver (libcuda.so.1)");
    throw DeviceError(concat("cuda: the NVIDIA driver knows CUDA ", version_text(driver), ", wanted at least ",
                             version_text(CUDART_VERSION)));
  }
  PYCOLL_CHECK_AS(DeviceError, error != cudaErrorNoDevice,
                  "cuda: no device is visible (CUDA_VISIBLE_DEVICES, nvidia-smi)");
  throw DeviceError(concat("cuda: ", call, " failed: ", cudaGetErrorName(error), ": ", cudaGetErrorString(error)));
}

int device_count() {
  int count = 0;
  PYCOLL_CUDA(cudaGetDeviceCount(&count));
  return count;
}

int runtime_version() {
  return CUDART_VERSION;
}

unsigned most_blocks() {
  int device, processors;
  PYCOLL_CUDA(cudaGetDevice(&device));
  PYCOLL_CUDA(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device));
  return unsigned(processors) * 8;
}

int device_of(const void* memory) {
  cudaPointerAttributes found;
  PYCOLL_CUDA(cudaPointerGetAttributes(&found, memory));
  return found.type == cudaMemoryTypeDevice || found.type == cudaMemoryTypeManaged ? found.device : -1;
}

void read(void* to, const void* from, size_t bytes, Stream stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  PYCOLL_CUDA(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, on));
  PYCOLL_CUDA(cudaStreamSynchronize(on));
}

DeviceOf::DeviceOf(const void* memory) {
  PYCOLL_CUDA(cudaGetDevice(&before_));
  if (const int device = device_of(memory); device >= 0) PYCOLL_CUDA(cudaSetDevice(device));
}

DeviceOf::~DeviceOf() {
  cudaSetDevice(before_);
}

Temporary::Temporary(size_t bytes, Stream stream) : stream_(stream) {
  if (bytes) PYCOLL_CUDA(cudaMallocAsync(&data_, bytes, static_cast<cudaStream_t>(stream)));
}

Temporary::~Temporary() {
  if (data_) cudaFreeAsync(data_, static_cast<cudaStream_t>(stream_));
}

Memory::~Memory() {
  cudaFree(data_);
}

std::byte* Memory::get(size_t bytes) {
  if (bytes > capacity_) {
    PYCOLL_CUDA(cudaFree(data_));
    data_ = nullptr, capacity_ = 0;
    void* fresh = nullptr;
    PYCOLL_CUDA(cudaMalloc(&fresh, bytes));
    data_ = static_cast<std::byte*>(fresh), capacity_ = bytes;
    PYCOLL_CUDA(cudaMemset(data_, 0, bytes));
    PYCOLL_CUDA(cudaDeviceSynchronize());
  }
  return data_;
}

}  // namespace pycoll::kernels::cuda
