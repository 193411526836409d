// Names that users write, as the core's enums.
#pragma once
#include <pybind11/pybind11.h>

#include <optional>
#include <string_view>
#include <vector>

#include "algo/select.h"
#include "core/op.h"

namespace pycoll::bind {

inline std::string_view text_of(pybind11::handle x, const char* what) {
  Py_ssize_t bytes = 0;
  const char* const text = PyUnicode_Check(x.ptr()) ? PyUnicode_AsUTF8AndSize(x.ptr(), &bytes) : nullptr;
  PYCOLL_CHECK(text, what, " is ", std::string(pybind11::repr(x)), ", wanted a name");
  return {text, size_t(bytes)};
}

// A Python number; `what` names it, "timeout" for example.
inline double number(pybind11::handle x, const char* operation, const char* what) {
  const double value = PyFloat_AsDouble(x.ptr());
  if (value != -1 || !PyErr_Occurred()) return value;
  PyErr_Clear();
  throw InvalidArgument(concat(operation, ": ", what, " is ", std::string(pybind11::repr(x)), ", wanted a number"));
}

inline ReduceOp parse_op(pybind11::handle x) {
  const std::string_view name = text_of(x, "op");
  for (int i = 0; i < kReduceOps; ++i)
    if (name_of(ReduceOp(i)) == name) return ReduceOp(i);
  throw InvalidArgument(concat("op is \"", name, "\", wanted sum, avg, min, max, prod, and, or, xor or premul_sum"));
}

inline Algo parse_algo(pybind11::handle x) {
  return x.is_none() ? Algo::automatic : algo::parse_algo(text_of(x, "algo"));
}

using Counts = std::optional<std::vector<size_t>>;

// None, or a sequence of whole numbers, none negative. `what` names operation and argument.
inline Counts parse_counts(const pybind11::object& x, const char* what) {
  if (x.is_none()) return {};
  std::vector<size_t> counts;
  for (const pybind11::handle item : pybind11::reinterpret_steal<pybind11::object>(
           PySequence_Check(x.ptr()) && !PyUnicode_Check(x.ptr()) ? PySequence_List(x.ptr()) : PyList_New(0))) {
    const pybind11::object number = pybind11::reinterpret_steal<pybind11::object>(PyNumber_Index(item.ptr()));
    if (!number) PyErr_Clear();
    const long long count = number ? PyLong_AsLongLong(number.ptr()) : -1;
    if (PyErr_Occurred()) PyErr_Clear();
    PYCOLL_CHECK(count >= 0, what, " has ", std::string(pybind11::repr(item)), ", wanted whole numbers, at least 0");
    counts.push_back(size_t(count));
  }
  PYCOLL_CHECK(!counts.empty(), what, " is ", std::string(pybind11::repr(x)), ", wanted one number for each rank");
  return counts;
}

}  // namespace pycoll::bind
