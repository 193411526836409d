// Python module _cuda: the reduce kernels on addresses of device memory, and encoders and decoders on CUDA arrays.
// Importable without a driver; calls then raise DeviceError.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstring>
#include <string_view>
#include <vector>

#include "bind/cuda_array.h"
#include "bind/errors.h"
#include "codec/wire.h"
#include "core/error.h"
#include "kernels/quantize_cuda.h"
#include "kernels/reduce_cuda.h"
#include "kernels/topk_cuda.h"

namespace py = pybind11;
using namespace pycoll;

namespace {

// The value of an enumeration of `count` values that is called `name`.
template <class Enum>
Enum named(std::string_view name, int count, const char* what) {
  for (int i = 0; i < count; ++i) {
    if (name_of(Enum(i)) == name) return Enum(i);
  }
  throw InvalidArgument(concat("cuda: got ", what, " '", name, "'"));
}

std::byte* memory_at(uintptr_t address) {
  return reinterpret_cast<std::byte*>(address);
}

void reduce_all(uintptr_t dst, const std::vector<uintptr_t>& srcs, size_t count, std::string_view dtype,
                std::string_view op, int divisor, uintptr_t stream) {
  const Buffer out{memory_at(dst), count, named<DType>(dtype, kDTypes, "dtype")};
  const auto operation = named<ReduceOp>(op, kReduceOps, "op");
  std::vector<const std::byte*> sources;
  for (const uintptr_t src : srcs) sources.push_back(memory_at(src));
  const py::gil_scoped_release unlocked;
  kernels::cuda::reduce_all(out, sources, operation, divisor, memory_at(stream));
}

void reduce_into(uintptr_t dst, uintptr_t a, uintptr_t b, size_t count, std::string_view dtype, std::string_view op,
                 uintptr_t stream) {
  reduce_all(dst, {a, b}, count, dtype, op, 1, stream);
}

// --- Codecs.

namespace cuda = kernels::cuda;
using bind::CudaArray;
using codec::WireHeader;

// None, or as many elements as x has.
float* residual_of(const py::object& residual, const CudaArray& x) {
  if (residual.is_none()) return nullptr;
  const CudaArray kept(residual, "residual", "<f4");
  PYCOLL_CHECK(kept.count == x.count, "cuda: residual has ", kept.count, " elements, x has ", x.count);
  return kept.floats();
}

// Returns the bytes of the wire.
size_t seal_wire(const CudaArray& wire, const WireHeader& header, cuda::Stream stream) {
  uint32_t words[8];
  static_assert(sizeof(words) == sizeof(header));
  std::memcpy(words, &header, sizeof(words));
  cuda::seal(wire.data, words, header.bytes, stream);
  return sizeof(header) + header.bytes;
}

struct Format {
  std::string_view name;
  kernels::Grid grid;
  codec::CodecId id;
  codec::ValueFormat value;
};
constexpr Format kFormats[] = {{"int8", kernels::Grid::int8, codec::CodecId::int8, codec::ValueFormat::int8},
                               {"int4", kernels::Grid::int4, codec::CodecId::int4, codec::ValueFormat::int4},
                               {"e4m3", kernels::Grid::e4m3, codec::CodecId::fp8, codec::ValueFormat::e4m3},
                               {"e5m2", kernels::Grid::e5m2, codec::CodecId::fp8, codec::ValueFormat::e5m2},
                               {"sign", kernels::Grid::bit, codec::CodecId::sign, codec::ValueFormat::bit}};

// A codec of blocks, and random numbers of its rounding.
struct Blocks {
  const Format* format = nullptr;
  kernels::Quantizer how;

  Blocks(std::string_view name, uint32_t block, bool stochastic, uint64_t seed) {
    for (const Format& known : kFormats)
      if (known.name == name) format = &known;
    PYCOLL_CHECK(format, "cuda: got format '", name, "', wanted int8, int4, e4m3, e5m2 or sign");
    PYCOLL_CHECK(!stochastic || name == "int8" || name == "int4", "cuda: only int8 and int4 round stochastically");
    PYCOLL_CHECK(block >= kernels::kLeastBlock && block <= kernels::kMostBlock && (block & (block - 1)) == 0,
                 "cuda: block is ", block, ", wanted a power of two from ", kernels::kLeastBlock, " to ",
                 kernels::kMostBlock);
    how = {.grid = format->grid, .block = block, .stochastic = stochastic, .seed = seed};
  }

  size_t payload_bytes(size_t count) const { return kernels::quantized_bytes(how.grid, how.block, count); }
  size_t wire_bytes(size_t count) const { return sizeof(WireHeader) + payload_bytes(count); }

  std::byte* payload(const CudaArray& wire, size_t count) const {
    PYCOLL_CHECK(wire.count >= wire_bytes(count), "cuda: wire has ", wire.count, " bytes, ", count, " elements need ",
                 wire_bytes(count));
    return wire.data + sizeof(WireHeader);
  }
  size_t seal(const CudaArray& wire, size_t count, cuda::Stream stream) const {
    return seal_wire(wire,
                     {.magic = codec::kMagic,
                      .version = codec::kVersion,
                      .codec = uint8_t(format->id),
                      .format = uint8_t(format->value),
                      .reserved = 0,
                      .count = count,
                      .bytes = payload_bytes(count),
                      .parameter = how.block,
                      .check = 0},
                     stream);
  }

  size_t encode(const py::object& in, const py::object& out, const py::object& residual, uint64_t step, uint64_t index,
                uint32_t rank, const py::object& on) const {
    const CudaArray x(in, "x", "<f4"), wire(out, "wire", "|u1");
    float* const lost = residual_of(residual, x);
    const auto stream = bind::stream_of(on, in);
    kernels::Quantizer now = how;
    now.step = step, now.index = index, now.stream = rank;
    const py::gil_scoped_release unlocked;
    const cuda::DeviceOf device(wire.data);
    cuda::quantize(now, x.floats(), lost, x.count, payload(wire, x.count), stream);
    return seal(wire, x.count, stream);
  }
  void decode(const py::object& to, const py::object& from, bool add, const py::object& on) const {
    const CudaArray out(to, "out", "<f4"), wire(from, "wire", "|u1");
    const auto stream = bind::stream_of(on, to);
    const py::gil_scoped_release unlocked;
    const cuda::DeviceOf device(out.data);
    (add ? cuda::dequantize_add : cuda::dequantize_into)(how.grid, how.block, out.floats(), payload(wire, out.count),
                                                         out.count, stream);
  }
  size_t sum(const py::list& from, const py::object& to, size_t count, const py::object& on) const {
    const CudaArray out(to, "wire", "|u1");
    std::vector<const std::byte*> payloads;
    for (const auto wire : from) payloads.push_back(payload(CudaArray(wire, "wires", "|u1"), count));
    const auto stream = bind::stream_of(on, to);
    const py::gil_scoped_release unlocked;
    const cuda::DeviceOf device(out.data);
    cuda::requantize(how, payloads, count, payload(out, count), stream);
    return seal(out, count, stream);
  }
};

// --- Top-k of one array, step after step. Its memory is of the device of the first array.
class TopK {
 public:
  size_t select(const py::object& in, size_t k, const py::object& indices, const py::object& values,
                const py::object& residual, const py::object& on) {
    const CudaArray x(in, "x", "<f4"), index(indices, "index", "<i4"), value(values, "value", "<f4");
    const size_t entries = std::min(k, x.count);
    PYCOLL_CHECK(index.count >= entries && value.count >= entries, "cuda: index and value have room for ", index.count,
                 " and ", value.count, " entries, wanted ", entries);
    float* const lost = residual_of(residual, x);
    const auto stream = bind::stream_of(on, in);
    const py::gil_scoped_release unlocked;
    const cuda::DeviceOf device(x.data);
    cuda::select_topk(x.floats(), lost, x.count, k, kept_.get(cuda::kTopkKeptBytes),
                      {reinterpret_cast<uint32_t*>(index.data), value.floats()},
                      scratch_.get(cuda::topk_scratch_bytes(x.count, k)), stream);
    return entries;
  }

  // select, as a wire of codec/sparse.h. Raises InvalidArgument where that would be longer than the array.
  size_t encode(const py::object& in, size_t k, const py::object& out, const py::object& residual,
                std::string_view format, const py::object& on) {
    const CudaArray x(in, "x", "<f4"), wire(out, "wire", "|u1");
    float* const lost = residual_of(residual, x);
    const cuda::Sparse to{wire.data + sizeof(WireHeader), x.count, std::min(k, x.count),
                          named<DType>(format, kDTypes, "format")};
    const size_t bytes = wire_bytes(to);
    PYCOLL_CHECK(wire.count >= bytes, "cuda: wire has ", wire.count, " bytes, wanted ", bytes);
    const auto stream = bind::stream_of(on, in);
    const py::gil_scoped_release unlocked;
    const cuda::DeviceOf device(x.data);
    std::byte* const memory = entries_.get(to.entries * 8);
    const kernels::Entries entries{reinterpret_cast<uint32_t*>(memory),
                                   reinterpret_cast<float*>(memory + 4 * to.entries)};
    cuda::select_topk(x.floats(), lost, x.count, k, kept_.get(cuda::kTopkKeptBytes), entries,
                      scratch_.get(cuda::topk_scratch_bytes(x.count, k)), stream);
    cuda::pack(to, entries, lost, stream);
    return seal_wire(wire,
                     {.magic = codec::kMagic,
                      .version = codec::kVersion,
                      .codec = uint8_t(codec::CodecId::topk),
                      .format = uint8_t(value_format(to.format)),
                      .reserved = 0,
                      .count = x.count,
                      .bytes = cuda::sparse_bytes(to),
                      .parameter = uint32_t(to.entries),
                      .check = 0},
                     stream);
  }
  static void decode(const py::object& to, const py::object& from, size_t k, std::string_view format, bool add,
                     const py::object& on) {
    const CudaArray out(to, "out", "<f4"), wire(from, "wire", "|u1");
    const cuda::Sparse sparse{wire.data + sizeof(WireHeader), out.count, std::min(k, out.count),
                              named<DType>(format, kDTypes, "format")};
    PYCOLL_CHECK(wire.count >= wire_bytes(sparse), "cuda: wire has ", wire.count, " bytes, wanted ",
                 wire_bytes(sparse));
    const auto stream = bind::stream_of(on, to);
    const py::gil_scoped_release unlocked;
    const cuda::DeviceOf device(out.data);
    (add ? cuda::unpack_add : cuda::unpack_into)(out.floats(), sparse, stream);
  }
  static size_t bytes_of(size_t count, size_t k, std::string_view format) {
    return wire_bytes({nullptr, count, std::min(k, count), named<DType>(format, kDTypes, "format")});
  }

  void forget(uintptr_t stream) { cuda::forget_topk(kept_.get(cuda::kTopkKeptBytes), memory_at(stream)); }

 private:
  static codec::ValueFormat value_format(DType format) {
    return format == DType::f32   ? codec::ValueFormat::f32
           : format == DType::f16 ? codec::ValueFormat::f16
                                  : codec::ValueFormat::bf16;
  }
  static size_t wire_bytes(const cuda::Sparse& sparse) {
    PYCOLL_CHECK(sparse.format == DType::f32 || is_half(sparse.format), "cuda: sparse values in ",
                 name_of(sparse.format), ", wanted f32, f16 or bf16");
    const size_t payload = cuda::sparse_bytes(sparse);
    PYCOLL_CHECK(payload <= sparse.count * sizeof(float), "cuda: ", sparse.entries, " entries of ", sparse.count,
                 " elements are longer than the elements: send these");
    return sizeof(WireHeader) + payload;
  }

  cuda::Memory kept_, scratch_, entries_;
};

void bind_codecs(py::module_& module) {
  py::class_<Blocks>(module, "Blocks",
                     "Block quantization of float32 arrays of a CUDA device (__cuda_array_interface__: torch, CuPy). "
                     "format: int8, int4, e4m3, e5m2, sign; block: a power of two from 32 to 4096. Wires are uint8, "
                     "the bytes that CPU codecs write. Calls are enqueued on `stream` (a number), by default the "
                     "array's own: what its interface names, torch's current one, or the default stream. None waits.")
      .def(py::init<std::string_view, uint32_t, bool, uint64_t>(), py::arg("format") = "int8", py::arg("block") = 256,
           py::arg("stochastic") = false, py::arg("seed") = 0)
      .def("wire_bytes", &Blocks::wire_bytes, py::arg("count"), "Bytes of header and payload of `count` elements.")
      .def("encode", &Blocks::encode, py::arg("x"), py::arg("wire"), py::arg("residual") = py::none(),
           py::arg("step") = 0, py::arg("index") = 0, py::arg("rank") = 0, py::arg("stream") = py::none(),
           "Writes x, or x + residual, into wire; residual becomes what is lost. Returns the bytes of the wire.")
      .def(
          "decode_into",
          [](const Blocks& self, const py::object& out, const py::object& wire, const py::object& stream) {
            self.decode(out, wire, false, stream);
          },
          py::arg("out"), py::arg("wire"), py::arg("stream") = py::none(),
          "out = wire. The header is not read: whoever received it has checked it.")
      .def(
          "decode_add",
          [](const Blocks& self, const py::object& acc, const py::object& wire, const py::object& stream) {
            self.decode(acc, wire, true, stream);
          },
          py::arg("acc"), py::arg("wire"), py::arg("stream") = py::none(), "acc += wire.")
      .def(
          "sum", &Blocks::sum, py::arg("wires"), py::arg("wire"), py::arg("count"), py::arg("stream") = py::none(),
          "wire = the sum of up to 64 wires of `count` elements, added in float32 in the order given, quantized once.");
  py::class_<TopK>(module, "TopK", "Exact top-k of one float32 array of a CUDA device, step after step.")
      .def(py::init<>())
      .def("select", &TopK::select, py::arg("x"), py::arg("k"), py::arg("index"), py::arg("value"),
           py::arg("residual") = py::none(), py::arg("stream") = py::none(),
           "index (int32) and value become the k entries of x, or of x + residual, of largest magnitude, in ascending "
           "order of their indices; residual becomes x + residual, and 0 for what was selected. Returns min(k, "
           "count). Does not wait for the device, but where temporary memory grows.")
      .def("encode", &TopK::encode, py::arg("x"), py::arg("k"), py::arg("wire"), py::arg("residual") = py::none(),
           py::arg("format") = "f32", py::arg("stream") = py::none(),
           "select, written as a wire whose values are f32, f16 or bf16. Returns the bytes of the wire.")
      .def_static("wire_bytes", &TopK::bytes_of, py::arg("count"), py::arg("k"), py::arg("format") = "f32",
                  "Bytes of header and payload.")
      .def_static(
          "decode_into",
          [](const py::object& out, const py::object& wire, size_t k, std::string_view format,
             const py::object& stream) { TopK::decode(out, wire, k, format, false, stream); },
          py::arg("out"), py::arg("wire"), py::arg("k"), py::arg("format") = "f32", py::arg("stream") = py::none(),
          "out = wire. The header is not read: whoever received it has checked it.")
      .def_static(
          "decode_add",
          [](const py::object& acc, const py::object& wire, size_t k, std::string_view format,
             const py::object& stream) { TopK::decode(acc, wire, k, format, true, stream); },
          py::arg("acc"), py::arg("wire"), py::arg("k"), py::arg("format") = "f32", py::arg("stream") = py::none(),
          "acc += wire.")
      .def("forget", &TopK::forget, py::arg("stream") = 0,
           "The next selection is as the first one: slower, with the same result.");
}

}  // namespace

PYBIND11_MODULE(_cuda, module) {
  module.doc() =
      "Kernels on a CUDA device. Of reduce_into and reduce_all, addresses are integers, as from tensor.data_ptr(); "
      "dtypes are named as in "
      "f32, bf16, i64; a call is enqueued on `stream` (a cudaStream_t, 0 is the default) and returns.";
  bind::translate_errors();
  module.attr("RUNTIME_VERSION") = kernels::cuda::runtime_version();
  module.def("device_count", &kernels::cuda::device_count,
             "Visible CUDA devices. Raises DeviceError, naming what is missing, if there is no driver or no device.");
  module.def("reduce_into", &reduce_into, py::arg("dst"), py::arg("a"), py::arg("b"), py::arg("count"),
             py::arg("dtype"), py::arg("op") = "sum", py::arg("stream") = 0,
             "dst[i] = a[i] op b[i]; dst may be a or b.");
  module.def("reduce_all", &reduce_all, py::arg("dst"), py::arg("srcs"), py::arg("count"), py::arg("dtype"),
             py::arg("op") = "sum", py::arg("divisor") = 1, py::arg("stream") = 0,
             "dst[i] = (srcs[0][i] op srcs[1][i] op ...) / divisor, rounded once; dst may be one of srcs.");
  bind_codecs(module);
}
