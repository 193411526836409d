#include "bind/borrow.h"

#include <cstring>
#include <optional>
#include <string>
#include <unordered_map>

#include "core/error.h"

namespace pycoll::bind {
namespace {

std::string type_of(py::handle x) {
  return py::str(py::type::handle_of(x).attr("__name__"));
}

// DLPack's C structures, version 0.8 (https://dmlc.github.io/dlpack/latest/c_api.html).
struct DLTensor {
  void* data;
  struct {
    int32_t type, id;
  } device;
  int32_t ndim;
  struct {
    uint8_t code, bits;
    uint16_t lanes;
  } dtype;
  int64_t* shape;
  int64_t* strides;
  uint64_t byte_offset;
};
struct DLManagedTensor {
  DLTensor tensor;
  void* context;
  void (*deleter)(DLManagedTensor*);
};

std::optional<DType> integer(size_t bytes, bool is_signed) {
  switch (bytes) {
    case 1: return is_signed ? DType::i8 : DType::u8;
    case 2: return is_signed ? DType::i16 : DType::u16;
    case 4: return is_signed ? DType::i32 : DType::u32;
    case 8: return is_signed ? DType::i64 : DType::u64;
    default: return {};
  }
}

// A struct-module format of one element, its byte order removed.
std::optional<DType> from_format(const char* format, size_t bytes) {
  if (!std::strcmp(format, "Zf")) return DType::c64;
  if (!std::strcmp(format, "Zd")) return DType::c128;
  if (!format[0] || format[1]) return {};
  switch (format[0]) {
    case 'e': return DType::f16;
    case 'f': return DType::f32;
    case 'd': return DType::f64;
    case '?': return DType::boolean;
    case 'b':
    case 'h':
    case 'i':
    case 'l':
    case 'q':
    case 'n': return integer(bytes, true);
    case 'c':
    case 'B':
    case 'H':
    case 'I':
    case 'L':
    case 'Q':
    case 'N': return integer(bytes, false);
    default: return {};
  }
}

std::optional<DType> from_dlpack_type(uint8_t code, uint8_t bits) {
  switch (code) {
    case 0: return integer(bits / 8, true);
    case 1: return integer(bits / 8, false);
    case 2:
      return bits == 16 ? DType::f16 : bits == 32 ? DType::f32 : bits == 64 ? std::optional(DType::f64) : std::nullopt;
    case 4: return bits == 16 ? std::optional(DType::bf16) : std::nullopt;
    case 5: return bits == 64 ? DType::c64 : bits == 128 ? std::optional(DType::c128) : std::nullopt;
    case 6: return DType::boolean;
    default: return {};
  }
}

std::optional<DType> from_name(const std::string& name) {
  static const std::unordered_map<std::string, DType> names = {
      {"float16", DType::f16},  {"bfloat16", DType::bf16}, {"float32", DType::f32},    {"float64", DType::f64},
      {"int8", DType::i8},      {"int16", DType::i16},     {"int32", DType::i32},      {"int64", DType::i64},
      {"uint8", DType::u8},     {"uint16", DType::u16},    {"uint32", DType::u32},     {"uint64", DType::u64},
      {"bool", DType::boolean}, {"complex64", DType::c64}, {"complex128", DType::c128}};
  const auto found = names.find(name);
  return found == names.end() ? std::nullopt : std::optional(found->second);
}

[[noreturn]] void refuse_dtype(const char* operation, py::handle x, const std::string& got) {
  throw InvalidArgument(
      concat(operation, ": got a ", type_of(x), " of ", got,
             ", wanted float16, bfloat16, float32, float64, int8-64, uint8-64, bool, complex64 or complex128"));
}

void want_contiguous(bool contiguous, const char* operation, py::handle x) {
  PYCOLL_CHECK(contiguous, operation, ": got a non-contiguous ", type_of(x),
               ", wanted C-contiguous memory (make it with ", "numpy.ascontiguousarray or .contiguous())");
}

// Names of what a tensor is asked for, made once: a short call spends most of its time on these questions.
struct Names {
  static py::handle interned(const char* name) { return PyUnicode_InternFromString(name); }
  const py::handle dtype = interned("dtype"), is_sparse = interned("is_sparse"), is_cpu = interned("is_cpu"),
                   is_contiguous = interned("is_contiguous"), is_conj = interned("is_conj"),
                   is_neg = interned("is_neg"), requires_grad = interned("requires_grad"),
                   data_ptr = interned("data_ptr"), numel = interned("numel");
};
const Names& names() {
  static const Names all;
  return all;
}

py::object call_method(py::handle object, py::handle name) {
  PyObject* const result = PyObject_CallMethodNoArgs(object.ptr(), name.ptr());
  if (!result) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(result);
}

bool is_true(const py::object& answer) {
  return answer.ptr() == Py_True;
}

// torch.dtype objects are singletons: looked up by address, after the first time.
DType torch_dtype(py::handle tensor, const char* operation) {
  static std::unordered_map<PyObject*, DType> known;
  const py::object dtype = py::getattr(tensor, names().dtype);
  if (const auto found = known.find(dtype.ptr()); found != known.end()) return found->second;
  const std::string text = py::str(dtype);  // "torch.float32"
  const auto named = from_name(text.substr(text.find('.') + 1));
  if (!named) refuse_dtype(operation, tensor, text);
  return known[dtype.inc_ref().ptr()] = *named;
}

}  // namespace

Borrowed::Borrowed(py::handle array, const char* operation, Access access) {
  if (PyObject_CheckBuffer(array.ptr()) && from_buffer(array, operation, access)) return;
  if (PyObject_HasAttr(array.ptr(), names().data_ptr.ptr())) {
    from_torch(array, operation, access);
  } else if (py::hasattr(array, "__array_interface__")) {
    from_interface(array, operation, access);
  } else {
    PYCOLL_CHECK(py::hasattr(array, "__dlpack__"), operation, ": got a ", type_of(array),
                 ", wanted a NumPy array, a torch tensor, or anything with the buffer protocol or DLPack");
    from_dlpack(array, operation);
  }
}

Borrowed::~Borrowed() {
  if (view_.obj) PyBuffer_Release(&view_);
}

Borrowed::Borrowed(Borrowed&& other) noexcept
    : buffer_(other.buffer_), view_(other.view_), keep_(std::move(other.keep_)) {
  other.view_.obj = nullptr;
}

// False if the object cannot export its element type this way (bfloat16 of ml_dtypes).
bool Borrowed::from_buffer(py::handle array, const char* operation, Access access) {
  if (PyObject_GetBuffer(array.ptr(), &view_, PyBUF_STRIDES | PyBUF_FORMAT) != 0) {
    PyErr_Clear();
    view_.obj = nullptr;
    return false;
  }
  // From here on the destructor does not run if this throws: release by hand.
  const auto refuse = [&](const std::string& sentence) {
    PyBuffer_Release(&view_);
    throw InvalidArgument(sentence);
  };
  const char* format = view_.format ? view_.format : "B";
  if (*format == '>' || *format == '!') {
    if (view_.itemsize > 1)
      refuse(
          concat(operation, ": got a ", type_of(array), " of big-endian elements, wanted this machine's byte order"));
    ++format;
  } else if (*format == '<' || *format == '=' || *format == '@' || *format == '|') {
    ++format;
  }
  const auto dtype = from_format(format, size_t(view_.itemsize));
  if (!dtype)
    refuse(concat(operation, ": got a ", type_of(array), " of elements \"", view_.format,
                  "\", wanted float16, bfloat16, float32, float64, int8-64, uint8-64, bool, complex64 or complex128"));
  if (!PyBuffer_IsContiguous(&view_, 'C'))
    refuse(concat(operation, ": got a non-contiguous ", type_of(array),
                  ", wanted C-contiguous memory (make it with numpy.ascontiguousarray)"));
  if (access == Access::write && view_.readonly)
    refuse(
        concat(operation, ": got a read-only ", type_of(array), ", wanted memory that the result can be written to"));
  buffer_ = {static_cast<std::byte*>(view_.buf), size_t(view_.len / view_.itemsize), *dtype};
  return true;
}

void Borrowed::from_torch(py::handle tensor, const char* operation, Access access) {
  const Names& ask = names();
  const DType dtype = torch_dtype(tensor, operation);
  PYCOLL_CHECK(!is_true(py::getattr(tensor, ask.is_sparse)), operation, ": got a sparse tensor, wanted a dense one");
  PYCOLL_CHECK(is_true(py::getattr(tensor, ask.is_cpu)), operation, ": got a tensor on ",
               std::string(py::str(tensor.attr("device"))), ", wanted one in CPU memory");
  want_contiguous(is_true(call_method(tensor, ask.is_contiguous)), operation, tensor);
  PYCOLL_CHECK(!is_true(call_method(tensor, ask.is_conj)) && !is_true(call_method(tensor, ask.is_neg)), operation,
               ": got a lazily conjugated or negated tensor, wanted .resolve_conj() or .resolve_neg()");
  // As torch's own operations in place: autograd would not see the write.
  if (access == Access::write && is_true(py::getattr(tensor, ask.requires_grad)))
    PYCOLL_CHECK(!py::cast<bool>(py::module_::import("torch").attr("is_grad_enabled")()), operation,
                 ": got a tensor that requires grad, wanted .detach() of it, or to be called under torch.no_grad()");
  buffer_ = {reinterpret_cast<std::byte*>(py::cast<uintptr_t>(call_method(tensor, ask.data_ptr))),
             py::cast<size_t>(call_method(tensor, ask.numel)), dtype};
  keep_ = py::reinterpret_borrow<py::object>(tensor);
}

// NumPy arrays of element types that the buffer protocol does not know.
void Borrowed::from_interface(py::handle array, const char* operation, Access access) {
  const auto interface = array.attr("__array_interface__").cast<py::dict>();
  const std::string name = py::str(array.attr("dtype").attr("name"));
  const auto dtype = from_name(name);
  if (!dtype) refuse_dtype(operation, array, name);
  want_contiguous(array.attr("flags").attr("c_contiguous").cast<bool>(), operation, array);
  const auto data = interface["data"].cast<std::pair<uintptr_t, bool>>();
  PYCOLL_CHECK(access == Access::read || !data.second, operation, ": got a read-only ", type_of(array),
               ", wanted memory that the result can be written to");
  buffer_ = {reinterpret_cast<std::byte*>(data.first), array.attr("size").cast<size_t>(), *dtype};
  keep_ = py::reinterpret_borrow<py::object>(array);
}

void Borrowed::from_dlpack(py::handle array, const char* operation) {
  const py::object capsule = array.attr("__dlpack__")();
  auto* const managed = static_cast<DLManagedTensor*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor"));
  if (!managed) throw py::error_already_set();
  const DLTensor& t = managed->tensor;
  constexpr int kCpu = 1;
  PYCOLL_CHECK(t.device.type == kCpu, operation, ": got a ", type_of(array), " on DLPack device ", t.device.type,
               ", wanted CPU memory");
  const auto dtype = t.dtype.lanes == 1 ? from_dlpack_type(t.dtype.code, t.dtype.bits) : std::nullopt;
  if (!dtype)
    refuse_dtype(operation, array, concat("DLPack type ", int(t.dtype.code), " of ", int(t.dtype.bits), " bits"));
  size_t count = 1;
  bool contiguous = true;
  for (int d = t.ndim - 1; d >= 0; --d) {
    if (t.strides && t.shape[d] > 1) contiguous &= t.strides[d] == int64_t(count);
    count *= size_t(t.shape[d]);
  }
  want_contiguous(contiguous || count == 0, operation, array);
  buffer_ = {static_cast<std::byte*>(t.data) + t.byte_offset, count, *dtype};
  keep_ = py::make_tuple(capsule, array);
}

}  // namespace pycoll::bind
