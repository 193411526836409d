// The arithmetic is element.h's, which the CPU bodies and their tests share; only f16 is converted by the hardware,
// whose rounding is the same. Compiled with -fmad=false, and with CUDA's defaults -ftz=false and -prec-div=true.
//
// Not yet run on a GPU: compiled only. Its speed is unmeasured.
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include <algorithm>

#include "core/error.h"
#include "kernels/element.h"
#include "kernels/kernel_of.h"
#include "kernels/reduce_cuda.h"

namespace pycoll::kernels {
namespace {

// --- How an element type is read and written.

template <class T>
struct Direct {
  using Stored = T;
  __device__ static T read(T stored) { return stored; }
  __device__ static T write(T value) { return canonical(value); }
};

struct Bool {
  using Stored = uint8_t;
  __device__ static uint8_t read(uint8_t stored) { return truth(stored); }
  __device__ static uint8_t write(uint8_t value) { return value; }
};

struct BFloat16 {
  using Stored = uint16_t;
  __device__ static float read(uint16_t stored) { return widen_bf16<float>(stored); }
  __device__ static uint16_t write(float value) { return uint16_t(narrow_bf16(value)); }
};

struct Float16 {
  using Stored = uint16_t;
  __device__ static float read(uint16_t stored) { return __half2float(__ushort_as_half(stored)); }
  __device__ static uint16_t write(float value) {
    return value == value ? __half_as_ushort(__float2half_rn(value)) : uint16_t(0x7e00);
  }
};

// --- The kernel.

struct Sources {
  const std::byte* at[cuda::kMostSources];
  int count;
};

constexpr int kPackBytes = 16;  // what one thread loads at a time: the widest load there is

template <class Stored, int lanes>
struct alignas(sizeof(Stored) * lanes == kPackBytes ? kPackBytes : alignof(Stored)) Pack {
  Stored lane[lanes];
};

// Elements i * lanes to i * lanes + lanes - 1: every source is read before dst is written, so dst may be one of them.
template <class E, class Op, int lanes>
__device__ void reduce_pack(std::byte* dst, const Sources& srcs, int divisor, size_t i) {
  using In = Pack<typename E::Stored, lanes>;
  using Lane = decltype(E::read({}));
  const In first = reinterpret_cast<const In*>(srcs.at[0])[i];
  Lane sum[lanes];
#pragma unroll
  for (int j = 0; j < lanes; ++j) sum[j] = E::read(first.lane[j]);
  for (int s = 1; s < srcs.count; ++s) {
    const In next = reinterpret_cast<const In*>(srcs.at[s])[i];
#pragma unroll
    for (int j = 0; j < lanes; ++j) sum[j] = Op::combine(sum[j], E::read(next.lane[j]));
  }
  if (divisor != 1) {
#pragma unroll
    for (int j = 0; j < lanes; ++j) sum[j] = divide(sum[j], divisor);
  }
  In out;
#pragma unroll
  for (int j = 0; j < lanes; ++j) out.lane[j] = E::write(sum[j]);
  reinterpret_cast<In*>(dst)[i] = out;
}

// The first `packs` packs of 16 bytes, then the elements behind them one by one.
template <class E, class Op>
__global__ void __launch_bounds__(256, 4)
    reduce_kernel(std::byte* dst, Sources srcs, size_t packs, size_t count, int divisor) {
  constexpr int lanes = kPackBytes / sizeof(typename E::Stored);
  const size_t stride = size_t(gridDim.x) * blockDim.x, thread = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
  for (size_t i = thread; i < packs; i += stride) reduce_pack<E, Op, lanes>(dst, srcs, divisor, i);
  for (size_t i = packs * lanes + thread; i < count; i += stride) reduce_pack<E, Op, 1>(dst, srcs, divisor, i);
}

// --- The launch.

struct Job {
  std::byte* dst;
  Sources srcs;
  size_t count;
  int divisor;
  cudaStream_t stream;

  bool aligned(size_t bytes) const {
    uintptr_t bits = reinterpret_cast<uintptr_t>(dst);
    for (int s = 0; s < srcs.count; ++s) bits |= reinterpret_cast<uintptr_t>(srcs.at[s]);
    return bits % bytes == 0;
  }
};
using Launch = void (*)(const Job&);

template <class E, class Op>
void launch(const Job& job) {
  using Stored = typename E::Stored;
  constexpr size_t threads = 256, lanes = kPackBytes / sizeof(Stored);
  PYCOLL_CHECK(job.aligned(alignof(Stored)), "cuda: reduce: got memory not aligned to ", alignof(Stored), " bytes");
  const size_t packs = job.aligned(kPackBytes) ? job.count / lanes : 0,
               work = std::max(packs, job.count - packs * lanes);
  const size_t blocks = std::min<size_t>(cuda::most_blocks(), (work + threads - 1) / threads);
  reduce_kernel<E, Op><<<unsigned(blocks), threads, 0, job.stream>>>(job.dst, job.srcs, packs, job.count, job.divisor);
  PYCOLL_CUDA(cudaGetLastError());
}

template <class E>
Launch bitwise(ReduceOp op) {
  switch (op) {
    case ReduceOp::band: return launch<E, And>;
    case ReduceOp::bor: return launch<E, Or>;
    default: return launch<E, Xor>;
  }
}

template <class E>
Launch arithmetic(ReduceOp op) {
  switch (op) {
    case ReduceOp::sum: return launch<E, Sum>;
    case ReduceOp::prod: return launch<E, Prod>;
    case ReduceOp::min: return launch<E, Min>;
    default: return launch<E, Max>;
  }
}

template <class T>
Launch integer(ReduceOp op) {
  const bool bits = op == ReduceOp::band || op == ReduceOp::bor || op == ReduceOp::bxor;
  return bits ? bitwise<Direct<T>>(op) : arithmetic<Direct<T>>(op);
}

Launch launch_of(Kernel kernel) {
  switch (kernel.dtype) {
    case DType::f16: return arithmetic<Float16>(kernel.op);
    case DType::bf16: return arithmetic<BFloat16>(kernel.op);
    case DType::f32: return arithmetic<Direct<float>>(kernel.op);
    case DType::f64: return arithmetic<Direct<double>>(kernel.op);
    case DType::i8: return integer<int8_t>(kernel.op);
    case DType::i16: return integer<int16_t>(kernel.op);
    case DType::i32: return integer<int32_t>(kernel.op);
    case DType::i64: return integer<int64_t>(kernel.op);
    case DType::u8: return integer<uint8_t>(kernel.op);
    case DType::u16: return integer<uint16_t>(kernel.op);
    case DType::u32: return integer<uint32_t>(kernel.op);
    case DType::u64: return integer<uint64_t>(kernel.op);
    case DType::boolean: return bitwise<Bool>(kernel.op);
    case DType::c64: return launch<Direct<Complex<float>>, Prod>;
    case DType::c128: return launch<Direct<Complex<double>>, Prod>;
  }
  return nullptr;
}

}  // namespace

void cuda::reduce_all(Buffer dst, std::span<const std::byte* const> srcs, ReduceOp op, int divisor, Stream stream) {
  PYCOLL_CHECK(is_defined(op, dst.dtype), "cuda: ", name_of(op), " is not defined for ", name_of(dst.dtype));
  PYCOLL_CHECK(!srcs.empty() && srcs.size() <= cuda::kMostSources, "cuda: reduce: got ", srcs.size(),
               " sources, wanted 1 to ", cuda::kMostSources);
  PYCOLL_CHECK(divisor >= 1, "cuda: reduce: got divisor ", divisor, ", wanted at least 1");
  if (dst.count == 0) return;
  const Kernel kernel = kernel_of(op, dst.dtype);
  Job job{dst.data, {}, dst.count * kernel.parts, divisor, static_cast<cudaStream_t>(stream)};
  std::copy(srcs.begin(), srcs.end(), job.srcs.at);
  job.srcs.count = int(srcs.size());
  launch_of(kernel)(job);
}

void cuda::reduce_into(Buffer dst, ConstBuffer a, ConstBuffer b, ReduceOp op, Stream stream) {
  PYCOLL_CHECK(a.count == dst.count && b.count == dst.count && a.dtype == dst.dtype && b.dtype == dst.dtype,
               "cuda: reduce_into: buffers differ in count or dtype");
  const std::byte* const srcs[] = {a.data, b.data};
  reduce_all(dst, srcs, op, 1, stream);
}

}  // namespace pycoll::kernels
