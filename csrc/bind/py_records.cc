#include "bind/py_records.h"

#include <pybind11/numpy.h>

#include <cstring>

#include "core/error.h"
#include "records/key_coding.h"
#include "records/varint.h"

namespace pycoll::bind {
namespace py = pybind11;
using records::Key;
using records::KeyType;
using records::Number;

namespace {

std::string type_of(py::handle object) {
  return Py_TYPE(object.ptr())->tp_name;
}

// Text that came from bytes that are not UTF-8 has surrogates for them (PEP 383), and becomes the same bytes again.
std::string_view utf8(py::handle text, std::string& room) {
  Py_ssize_t bytes;
  if (const char* data = PyUnicode_AsUTF8AndSize(text.ptr(), &bytes)) return {data, size_t(bytes)};
  PyErr_Clear();
  const auto escaped =
      py::reinterpret_steal<py::object>(PyUnicode_AsEncodedString(text.ptr(), "utf-8", "surrogateescape"));
  if (!escaped) {
    PyErr_Clear();
    throw InvalidArgument(
        concat("mapreduce: got text that is not valid Unicode: ", std::string(py::repr(text)), "; emit it as bytes"));
  }
  room.assign(PyBytes_AS_STRING(escaped.ptr()), size_t(PyBytes_GET_SIZE(escaped.ptr())));
  return room;
}

py::object text_to(std::string_view bytes) {
  PyObject* const text = PyUnicode_DecodeUTF8(bytes.data(), Py_ssize_t(bytes.size()), "surrogateescape");
  if (!text) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(text);
}

std::string_view bytes_of(py::handle object) {
  return {PyBytes_AS_STRING(object.ptr()), size_t(PyBytes_GET_SIZE(object.ptr()))};
}

// False if it needs more than 64 bits.
bool whole_from(py::handle number, int64_t& x) {
  int overflow;
  x = PyLong_AsLongLongAndOverflow(number.ptr(), &overflow);
  if (x == -1 && PyErr_Occurred()) throw py::error_already_set();
  return !overflow;
}

// A NumPy number, or another one, as Python's.
py::object plain_number(py::handle object) {
  PyObject* plain = nullptr;
  if (PyIndex_Check(object.ptr()))
    plain = PyNumber_Index(object.ptr());
  else if (py::hasattr(object, "__float__") && !py::isinstance<py::array>(object))
    plain = PyNumber_Float(object.ptr());
  if (!plain) PyErr_Clear();
  return py::reinterpret_steal<py::object>(plain);
}

py::object pickle(const char* function) {
  static const auto* const pickle = new py::module_(py::module_::import("pickle"));  // never freed: Python may be gone
  return pickle->attr(function);
}

}  // namespace

Key key_from(py::handle object, std::string& room) {
  PyObject* const p = object.ptr();
  if (PyUnicode_Check(p)) return {utf8(object, room), KeyType::text};
  if (PyBytes_Check(p)) return {bytes_of(object), KeyType::bytes};
  room.clear();
  if (PyTuple_Check(p)) {
    std::string member;
    for (const py::handle part : py::reinterpret_borrow<py::tuple>(object)) {
      PYCOLL_CHECK(!PyTuple_Check(part.ptr()),
                   "mapreduce: got a tuple in a tuple as key, wanted text, bytes or numbers in it");
      records::put_member(room, key_from(part, member));
    }
    return {room, KeyType::tuple};
  }
  const py::object number =
      PyFloat_Check(p) || PyLong_Check(p) ? py::reinterpret_borrow<py::object>(object) : plain_number(object);
  PYCOLL_CHECK(number, "mapreduce: got a key of type ", type_of(object),
               ", wanted str, bytes, int, float or a tuple of these");
  if (PyFloat_Check(number.ptr())) {
    records::put_real_key(room, PyFloat_AS_DOUBLE(number.ptr()));
    return {room, KeyType::real};
  }
  int64_t x;
  PYCOLL_CHECK(whole_from(number, x), "mapreduce: got a whole number of more than 64 bits as key");
  records::put_whole_key(room, x);
  return {room, KeyType::whole};
}

py::object key_to(const Key& key) {
  switch (key.type) {
    case KeyType::text: return text_to(key.bytes);
    case KeyType::bytes: return py::bytes(key.bytes.data(), key.bytes.size());
    case KeyType::whole: return py::int_(records::whole_key(key.bytes));
    case KeyType::real: return py::float_(records::real_key(key.bytes));
    case KeyType::tuple: break;
  }
  py::list members;
  std::string room;
  for (std::string_view left = key.bytes; !left.empty();) members.append(key_to(records::take_member(left, room)));
  return py::tuple(members);
}

std::string shown(const Key& key) {
  return std::string(py::repr(key_to(key)));
}

Number number_from(py::handle object, const Key& key) {
  const py::object number = PyFloat_Check(object.ptr()) || PyLong_Check(object.ptr())
                                ? py::reinterpret_borrow<py::object>(object)
                                : plain_number(object);
  PYCOLL_CHECK(number, "mapreduce: the value of key ", shown(key), " is of type ", type_of(object),
               ", wanted a number");
  if (PyFloat_Check(number.ptr())) return Number::of(PyFloat_AS_DOUBLE(number.ptr()));
  int64_t x;
  PYCOLL_CHECK(whole_from(number, x), "mapreduce: the value of key ", shown(key),
               " is a whole number of more than 64 bits");
  return Number::of(x);
}

uint64_t id_from(py::handle object, const Key& key) {
  const py::object number =
      PyLong_Check(object.ptr()) ? py::reinterpret_borrow<py::object>(object) : plain_number(object);
  int64_t x = -1;
  PYCOLL_CHECK(number && PyLong_Check(number.ptr()) && whole_from(number, x) && x >= 0, "mapreduce: the value of key ",
               shown(key), " is ", std::string(py::repr(object)), ", wanted a whole number from 0 to 2**63 - 1");
  return uint64_t(x);
}

std::string_view value_from(py::handle object, std::string& room) {
  PyObject* const p = object.ptr();
  room.clear();
  int64_t whole;
  if (object.is_none()) {
    room = "n";
  } else if (PyLong_CheckExact(p) && whole_from(object, whole)) {
    records::put_number(room, Number::of(whole));
  } else if (PyFloat_CheckExact(p)) {
    records::put_number(room, Number::of(PyFloat_AS_DOUBLE(p)));
  } else if (PyUnicode_CheckExact(p)) {
    std::string escaped;
    room = "s";
    room += utf8(object, escaped);
  } else if (PyBytes_CheckExact(p)) {
    room = "b";
    room += bytes_of(object);
  } else {
    const py::object pickled = pickle("dumps")(object, 5);
    room = "p";
    room += bytes_of(pickled);
  }
  return room;
}

py::object value_to(std::string_view value) {
  const std::string_view rest = value.substr(1);
  switch (value[0]) {
    case 'n': return py::none();
    case 'i': return py::int_(records::take_number(value).whole);
    case 'f': return py::float_(records::take_number(value).value);
    case 's': return text_to(rest);
    case 'b': return py::bytes(rest.data(), rest.size());
    case 'p': return pickle("loads")(py::bytes(rest.data(), rest.size()));
    case 'd': {
      std::vector<uint64_t> ids;
      records::IdSet::take(value, ids);
      return py::array_t<int64_t>(py::ssize_t(ids.size()), reinterpret_cast<const int64_t*>(ids.data()));
    }
  }
  throw TransportError("mapreduce: a value is of no kind that is known");
}

}  // namespace pycoll::bind
