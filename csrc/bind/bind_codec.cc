#include "bind/bind.h"
#include "bind/py_feedback.h"
#include "codec/blocks.h"
#include "codec/randomk.h"
#include "codec/shared_scale.h"
#include "codec/topk.h"
#include "core/error.h"

namespace pycoll::bind {
namespace py = pybind11;
using codec::Codec;
using codec::ValueFormat;

namespace {

using Object = const py::object&;

ValueFormat parse_format(const std::string& name) {
  constexpr std::string_view names[codec::kValueFormats] = {"f32",  "f16",  "bf16", "int8",
                                                            "int4", "e4m3", "e5m2", "bit"};
  for (int i = 0; i < codec::kValueFormats; ++i)
    if (names[i] == name) return ValueFormat(i);
  throw InvalidArgument(concat("format is \"", name, "\", wanted f32, f16, bf16, int8, int4, e4m3, e5m2 or bit"));
}

std::shared_ptr<Codec> blocks(const std::string& format, uint32_t block, bool stochastic, uint64_t seed) {
  return codec::make({parse_format(format), block, stochastic, seed});
}
std::shared_ptr<Codec> topk(double ratio, size_t k, bool exact, const std::string& format) {
  return std::make_shared<codec::TopK>(codec::Amount{ratio, k}, exact, parse_format(format));
}
std::shared_ptr<Codec> randomk(double ratio, size_t k, uint64_t seed) {
  return std::make_shared<codec::RandomK>(codec::Amount{ratio, k}, seed);
}
std::shared_ptr<Codec> shared_scale(int bits, uint32_t block) {
  return std::make_shared<codec::SharedScale>(bits, block);
}

// An array of f32, borrowed.
class Floats {
 public:
  Floats(Object x, const char* operation, Access access) : array_(x, operation, access) {
    PYCOLL_CHECK(array_.buffer().dtype == DType::f32, operation, ": got an array of ", name_of(array_.buffer().dtype),
                 ", wanted f32");
  }
  float* data() const { return reinterpret_cast<float*>(array_.buffer().data); }
  size_t count() const { return array_.buffer().count; }
  std::span<float> span() const { return {data(), count()}; }

 private:
  Borrowed array_;
};

size_t encode(const Codec& self, Object x, Object wire, Object residual, uint64_t step, uint32_t stream,
              uint64_t index) {
  const Floats in(x, "encode", Access::read);
  const Borrowed to(wire, "encode", Access::write);
  std::optional<Floats> kept;
  if (!residual.is_none()) kept.emplace(residual, "encode", Access::write);
  PYCOLL_CHECK(!kept || kept->count() == in.count(), "encode: got a residual of ", kept->count(),
               " elements for an array of ", in.count());
  PYCOLL_CHECK(to.buffer().bytes() >= self.most_bytes(in.count()), "encode: got ", to.buffer().bytes(),
               " bytes for the wire, wanted ", self.most_bytes(in.count()));
  const py::gil_scoped_release unlocked;
  return self.encode(in.span(), kept ? kept->data() : nullptr, {step, stream, index}, to.buffer().span());
}

void decode_into(Object out, Object wire) {
  const Floats to(out, "decode", Access::write);
  const Borrowed from(wire, "decode", Access::read);
  const py::gil_scoped_release unlocked;
  codec::decode_into(to.span(), from.buffer().span(), "given to decode");
}

void decode_add(Object acc, Object wire) {
  const Floats to(acc, "decode", Access::write);
  const Borrowed from(wire, "decode", Access::read);
  const py::gil_scoped_release unlocked;
  codec::decode_add(to.span(), from.buffer().span(), "given to decode");
}

py::dict report(const PyFeedback& self) {
  const codec::Report& r = self.state.report;
  py::dict result;
  result["encode_seconds"] = r.encode;
  result["wire_seconds"] = r.wire;
  result["decode_seconds"] = r.decode;
  result["wire_bytes"] = r.wire_bytes;
  result["sent"] = r.sent;
  result["kept"] = r.kept;
  result["dense_payloads"] = r.dense_payloads;
  return result;
}

}  // namespace

PyFeedback::PyFeedback(const py::object& residual) {
  if (residual.is_none()) return;
  array.emplace(residual, "Feedback", Access::write);
  const Buffer& memory = array->buffer();
  PYCOLL_CHECK(memory.dtype == DType::f32 || memory.dtype == DType::bf16, "Feedback: got a residual of ",
               name_of(memory.dtype), ", wanted f32 or bf16");
  state.count = memory.count;
  if (memory.dtype == DType::f32)
    state.residual = reinterpret_cast<float*>(memory.data);
  else
    state.stored = memory;
}

std::shared_ptr<Codec> codec_of(const py::object& codec, const char* operation) {
  py::object core = py::none();
  try {
    core = codec.attr("core");
  } catch (const py::error_already_set& error) {
    if (!error.matches(PyExc_AttributeError)) throw;  // a codec that says what it lacks
  }
  PYCOLL_CHECK(py::isinstance<Codec>(core), operation, ": got codec ", std::string(py::repr(codec)),
               ", wanted one of pycoll.codec, pycoll.Int8() for example");
  return core.cast<std::shared_ptr<Codec>>();
}

void bind_codec(py::module_& m) {
  py::class_<Codec, std::shared_ptr<Codec>>(m, "Encoder", "What a codec of pycoll.codec does its work with.")
      .def_static("blocks", &blocks, py::arg("format"), py::arg("block"), py::arg("stochastic"), py::arg("seed"))
      .def_static("topk", &topk, py::arg("ratio"), py::arg("k"), py::arg("exact"), py::arg("format"))
      .def_static("randomk", &randomk, py::arg("ratio"), py::arg("k"), py::arg("seed"))
      .def_static("shared_scale", &shared_scale, py::arg("bits"), py::arg("block"))
      .def("describe", &Codec::describe)
      .def("most_bytes", &Codec::most_bytes, py::arg("count"), "Bytes that a wire of `count` elements takes at most.")
      .def("encode", &encode, py::arg("x"), py::arg("wire"), py::arg("residual") = py::none(), py::arg("step") = 0,
           py::arg("stream") = 0, py::arg("index") = 0, "Writes header and payload into `wire`; returns their bytes.");
  m.def("decode_into", &decode_into, py::arg("out"), py::arg("wire"));
  m.def("decode_add", &decode_add, py::arg("acc"), py::arg("wire"));
  py::class_<PyFeedback>(m, "Feedback")
      .def(py::init<const py::object&>(), py::arg("residual") = py::none())
      .def_property_readonly("report", &report, "How the last operation went on this rank.");
}

}  // namespace pycoll::bind
