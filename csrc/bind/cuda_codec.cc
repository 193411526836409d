#include "bind/cuda_codec.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "bind/cuda_array.h"
#include "codec/codec_cuda.h"
#include "kernels/topk_cuda.h"

namespace pycoll::bind {
namespace {

namespace cuda = codec::cuda;
using codec::Codec;
using kernels::cuda::DeviceOf;
using Object = const py::object&;

void* stream_at(uintptr_t handle) {
  return reinterpret_cast<void*>(handle);
}

std::optional<CudaArray> residual_of(Object residual, const CudaArray& x) {
  if (residual.is_none()) return {};
  const CudaArray kept(residual, "residual", "<f4", Access::write);
  PYCOLL_CHECK(kept.count == x.count, "cuda: residual has ", kept.count, " elements, x has ", x.count);
  return kept;
}

std::optional<size_t> encode(const Codec& codec, Object in, Object out, Object residual, const codec::Moment& moment,
                             uintptr_t stream) {
  const CudaArray x(in, "x", "<f4", Access::read), wire(out, "wire", "|u1", Access::write);
  const auto lost = residual_of(residual, x);
  const size_t most = codec.most_bytes(x.count);
  PYCOLL_CHECK(wire.count >= most, "cuda: wire has ", wire.count, " bytes, wanted ", most);
  want_one_device({&wire, &x, lost ? &*lost : &x});
  const py::gil_scoped_release unlocked;
  const DeviceOf device(wire.data);
  return cuda::encode(codec, {x.floats(), x.count}, lost ? lost->floats() : nullptr, moment, {wire.data, wire.count},
                      stream_at(stream));
}

using Decode = decltype(cuda::decode_into);
void decode(Decode body, Object to, Object from, uintptr_t stream) {
  const CudaArray out(to, "out", "<f4", Access::write), wire(from, "wire", "|u1", Access::read);
  want_one_device({&wire, &out});
  const py::gil_scoped_release unlocked;
  const DeviceOf device(wire.data);
  body({out.floats(), out.count}, {wire.data, wire.count}, stream_at(stream));
}

py::bytes header(Object from, uintptr_t stream) {
  const CudaArray wire(from, "wire", "|u1", Access::read);
  codec::WireHeader header;
  {
    const py::gil_scoped_release unlocked;
    const DeviceOf device(wire.data);
    header = cuda::header_of({wire.data, wire.count}, stream_at(stream));
  }
  return {reinterpret_cast<const char*>(&header), sizeof(header)};
}

size_t check(Object from, uintptr_t stream) {
  const CudaArray wire(from, "wire", "|u1", Access::read);
  want_one_device({&wire});
  const py::gil_scoped_release unlocked;
  const DeviceOf device(wire.data);
  return cuda::check({wire.data, wire.count}, stream_at(stream));
}

size_t sum(const Codec& codec, const py::list& from, Object to, size_t count, uintptr_t stream) {
  const CudaArray out(to, "wire", "|u1", Access::write);
  std::vector<ConstBytes> wires;
  for (const auto each : from) {
    const CudaArray wire(each, "wires", "|u1", Access::read);
    want_one_device({&out, &wire});
    wires.emplace_back(wire.data, wire.count);
  }
  const py::gil_scoped_release unlocked;
  const DeviceOf device(out.data);
  return cuda::sum(codec, wires, count, {out.data, out.count}, stream_at(stream));
}

// Exact top-k of one array, step after step. What it keeps is memory of the device of the first array.
class TopK {
 public:
  size_t select(Object in, size_t k, Object indices, Object values, Object residual, uintptr_t stream) {
    const CudaArray x(in, "x", "<f4", Access::read), index(indices, "index", "<i4", Access::write),
        value(values, "value", "<f4", Access::write);
    const size_t entries = std::min(k, x.count);
    PYCOLL_CHECK(index.count >= entries && value.count >= entries, "cuda: index and value have room for ", index.count,
                 " and ", value.count, " entries, wanted ", entries);
    const auto lost = residual_of(residual, x);
    want_one_device({&x, &index, &value, lost ? &*lost : &x});
    const py::gil_scoped_release unlocked;
    const DeviceOf device(x.data);
    kernels::cuda::select_topk({x.floats(), lost ? lost->floats() : nullptr, x.count, k},
                               kept_.get(kernels::cuda::kTopkKeptBytes),
                               {reinterpret_cast<uint32_t*>(index.data), value.floats()}, stream_at(stream));
    return entries;
  }
  void forget(uintptr_t stream) {
    kernels::cuda::forget_topk(kept_.get(kernels::cuda::kTopkKeptBytes), stream_at(stream));
  }

 private:
  kernels::cuda::Memory kept_;
};

}  // namespace

void bind_cuda_codec(py::module_& module) {
  py::module_::import("pycoll._core");  // has the type of codecs
  module.def(
      "encode",
      [](const Codec& codec, Object x, Object wire, Object residual, uint64_t step, uint32_t rank, uint64_t index,
         uintptr_t stream) { return encode(codec, x, wire, residual, {step, rank, index}, stream); },
      py::arg("codec"), py::arg("x"), py::arg("wire"), py::arg("residual") = py::none(), py::arg("step") = 0,
      py::arg("rank") = 0, py::arg("index") = 0, py::arg("stream") = 0,
      "Writes x, or x + residual, into wire (uint8, with room for codec.most_bytes); residual becomes what is lost. "
      "Returns the bytes of the wire, or None where only its header has them: of top-k that is not exact.");
  module.def(
      "decode_into", [](Object out, Object wire, uintptr_t stream) { decode(cuda::decode_into, out, wire, stream); },
      py::arg("out"), py::arg("wire"), py::arg("stream") = 0,
      "out = wire. Waits for the stream: nothing is written before the wire has been checked.");
  module.def(
      "decode_add", [](Object acc, Object wire, uintptr_t stream) { decode(cuda::decode_add, acc, wire, stream); },
      py::arg("acc"), py::arg("wire"), py::arg("stream") = 0, "acc += wire, likewise.");
  module.def("header", &header, py::arg("wire"), py::arg("stream") = 0,
             "The 32 bytes that a wire begins with, unchecked. Waits for the stream.");
  module.def(
      "check", &check, py::arg("wire"), py::arg("stream") = 0,
      "The number of elements that a wire holds. Raises TransportError if it is not as an encoder wrote it. Waits "
      "for the stream.");
  module.def("sum", &sum, py::arg("codec"), py::arg("wires"), py::arg("wire"), py::arg("count"), py::arg("stream") = 0,
             "wire = the sum of up to 64 wires of `count` elements, added in float32 in the order given, quantized "
             "once; their headers are not read. codec: the one that made them. Returns the bytes of the wire.");
  py::class_<TopK>(module, "TopK", "Exact top-k of one float32 array of a CUDA device, step after step.")
      .def(py::init<>())
      .def("select", &TopK::select, py::arg("x"), py::arg("k"), py::arg("index"), py::arg("value"),
           py::arg("residual") = py::none(), py::arg("stream") = 0,
           "index (int32) and value become the k entries of x, or of x + residual, of largest magnitude, in ascending "
           "order of their indices; residual becomes x + residual, and 0 for what was selected. Returns min(k, "
           "count).")
      .def("forget", &TopK::forget, py::arg("stream") = 0,
           "The next selection is as the first one: slower, with the same result.");
}

}  // namespace pycoll::bind
