#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <chrono>
#include <functional>

#include "bind/bind.h"
#include "bind/borrow.h"
#include "bind/py_records.h"
#include "core/error.h"
#include "records/collector.h"
#include "records/merge.h"
#include "records/rows.h"
#include "records/spool.h"

namespace pycoll::bind {
namespace py = pybind11;
using namespace records;

namespace {

using Object = const py::object&;

Fold parse_fold(const std::string& name) {
  constexpr std::string_view names[] = {"none", "sum", "min", "max", "set"};
  for (int i = 0; i < 5; ++i)
    if (names[i] == name) return Fold(i);
  throw InvalidArgument(concat("mapreduce: fold is \"", name, "\", wanted none, sum, min, max or set"));
}
Order parse_order(const std::string& name) {
  PYCOLL_CHECK(name == "hash" || name == "key", "mapreduce: order is \"", name, "\", wanted hash or key");
  return name == "hash" ? Order::hash : Order::key;
}

// A key with its type in front, as samples are sent.
std::string with_type(const std::pair<std::string, uint8_t>& key) {
  return char(key.second) + key.first;
}
Key without_type(std::string_view key) {
  PYCOLL_CHECK(!key.empty() && uint8_t(key[0]) < kKeyTypes, "mapreduce: a bound is not a key");
  return {key.substr(1), KeyType(key[0])};
}

std::string_view text_of(const Borrowed& array) {
  const auto bytes = array.buffer().span();
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// With the GIL released, whether it was held or not.
void unlocked(const std::function<void()>& work) {
  if (!PyGILState_Check()) return work();
  const py::gil_scoped_release released;
  work();
}

// Calls `check`, a function of Python, about every 20 ms of a loop.
class Watch {
 public:
  explicit Watch(Object check) : check_(check) {}
  void turn() {
    if (++turns_ % 4) return;
    const auto now = std::chrono::steady_clock::now();
    if (now < next_) return;
    next_ = now + std::chrono::milliseconds(20);
    check_();
  }

 private:
  Object check_;
  unsigned turns_ = 0;
  std::chrono::steady_clock::time_point next_{};
};

// The collector with the fold that it was made with: how a value is read depends on it.
struct PyCollector {
  Fold fold;
  Collector core;
  PyCollector(const std::string& fold, const std::string& order, size_t memory, const std::string& folder)
      : fold(parse_fold(fold)), core(this->fold, parse_order(order), memory, folder, unlocked) {}

  void count(py::handle key) { core.add(key_from(key, key_room), Number::of(int64_t{1})); }
  void add(py::handle key, py::handle value) {
    const Key k = key_from(key, key_room);
    if (folds_numbers(fold))
      core.add(k, number_from(value, k));
    else if (fold == Fold::set)
      core.add(k, id_from(value, k));
    else
      core.add(k, value_from(value, value_room));
  }

 private:
  std::string key_room, value_room;
};

void add_pairs(PyCollector& self, Object pairs, Object check, bool count) {
  Watch watch(check);
  for (const py::handle pair : py::iter(pairs)) {
    watch.turn();
    PyObject* const p = pair.ptr();
    PYCOLL_CHECK(PyTuple_Check(p) && PyTuple_GET_SIZE(p) == 2, "mapreduce: map gave ", std::string(py::repr(pair)),
                 ", wanted pairs of key and value");
    if (count)
      self.count(PyTuple_GET_ITEM(p, 0));
    else
      self.add(PyTuple_GET_ITEM(p, 0), PyTuple_GET_ITEM(p, 1));
  }
}

void add_words(PyCollector& self, Object text) {
  const Borrowed array(text, "mapreduce", Access::read);
  const py::gil_scoped_release unlocked;
  self.core.add_words(text_of(array));
}

void add_positions(PyCollector& self, Object text, uint64_t first) {
  const Borrowed array(text, "mapreduce", Access::read);
  const py::gil_scoped_release unlocked;
  self.core.add_positions(text_of(array), first);
}

void finish(PyCollector& self) {
  const py::gil_scoped_release unlocked;
  self.core.finish();
}

void compact(PyCollector& self) {
  const py::gil_scoped_release unlocked;
  self.core.compact();
}

py::array_t<uint64_t> bucket_bytes(const PyCollector& self) {
  const auto bytes = self.core.bucket_bytes();
  return py::array_t<uint64_t>(py::ssize_t(bytes.size()), bytes.data());
}

py::list sample(const PyCollector& self) {
  py::list samples;
  for (const auto& run : self.core.runs())
    for (const auto& key : run->sample()) samples.append(py::make_tuple(py::bytes(with_type(key)), run->interval()));
  return samples;
}

std::vector<Segments> of_buckets(const PyCollector& self, const std::vector<bool>& wanted) {
  return self.core.of_buckets(wanted);
}

std::vector<Segments> between(const PyCollector& self, const std::optional<std::string>& from,
                              const std::optional<std::string>& to) {
  const Key lower = from ? without_type(*from) : Key{}, upper = to ? without_type(*to) : Key{};
  return self.core.between(from ? &lower : nullptr, to ? &upper : nullptr);
}

// A merge, and what rows are taken from it with.
struct PyMerge {
  Merge core;
  Rows rows{core};
  std::string key_bytes{};  // of `key`, the last one that pairs() gave
  KeyType key_type = KeyType::text;
  py::object key{};

  // Equal keys are one object, so that they are the same to Python as well: NaN is not equal to itself.
  py::object key_of(const Record& record) {
    if (!key || record.key != Key{key_bytes, key_type}) {
      key_bytes = record.key.bytes;
      key_type = record.key.type;
      key = key_to(record.key);
    }
    return key;
  }
};

std::unique_ptr<PyMerge> make_merge(const std::string& fold, const std::string& order, std::vector<Segments> sources,
                                    size_t buffer) {
  return std::unique_ptr<PyMerge>(
      new PyMerge{.core = Merge(parse_fold(fold), parse_order(order), std::move(sources), buffer)});
}

size_t fill(PyMerge& self, Object to) {
  const Borrowed array(to, "mapreduce", Access::write);
  const auto room = array.buffer().span();
  const py::gil_scoped_release unlocked;
  return self.core.fill(reinterpret_cast<char*>(room.data()), room.size());
}

py::list pairs(PyMerge& self, size_t most) {
  py::list result;
  size_t bytes = 0;
  for (Record record; bytes < most && self.rows.next(record);
       bytes += 64 + record.key.bytes.size() + record.value.size())
    result.append(py::make_tuple(self.key_of(record), value_to(record.value)));
  return result;
}

py::bytes lines(PyMerge& self, size_t most) {
  std::string text;
  {
    const py::gil_scoped_release unlocked;
    text = self.rows.lines(most);
  }
  return py::bytes(text);
}

// A vector of C++ as an array that owns it.
template <class T>
py::array_t<T> array_of(std::vector<T>&& values) {
  auto* const owned = new std::vector<T>(std::move(values));
  return py::array_t<T>(py::ssize_t(owned->size()), owned->data(),
                        py::capsule(owned, [](void* p) { delete static_cast<std::vector<T>*>(p); }));
}

py::object columns(PyMerge& self, size_t most, bool as_real) {
  Columns c;
  {
    const py::gil_scoped_release unlocked;
    c = self.rows.columns(most, as_real);
  }
  if (c.key_ends.empty()) return py::none();
  py::dict result;
  result["key_type"] = name_of(c.key_type);
  result["kind"] = std::string(1, c.kind);
  result["keys"] = py::bytes(c.keys);
  result["key_ends"] = array_of(std::move(c.key_ends));
  result["numbers"] = c.kind == 'f' ? py::object(array_of(std::move(c.reals))) : array_of(std::move(c.wholes));
  result["values"] = py::bytes(c.values);
  result["value_ends"] = array_of(std::move(c.value_ends));
  return result;
}

void put(Spool& self, Object key, Object value) {
  std::string key_room, value_room;
  const Key k = key_from(key, key_room);
  self.put({k, value_from(value, value_room)});
}

void append(Spool& self, Object stream) {
  const Borrowed array(stream, "mapreduce", Access::read);
  const py::gil_scoped_release unlocked;
  self.append(text_of(array));
}

// Until the merge has read `bytes` bytes more; false at its end.
bool take(Spool& self, PyMerge& merge, size_t bytes) {
  const py::gil_scoped_release unlocked;
  Record record;
  for (const size_t until = merge.core.read() + bytes; merge.core.read() < until; self.put(record))
    if (!merge.rows.next(record)) return false;
  return true;
}

}  // namespace

void bind_records(py::module_& m) {
  py::class_<Segments>(m, "Segments")
      .def_property_readonly("bytes", &Segments::bytes)
      .def_readonly("largest", &Segments::largest);

  py::class_<PyCollector>(m, "Collector")
      .def(py::init<const std::string&, const std::string&, size_t, const std::string&>(), py::arg("fold"),
           py::arg("order"), py::arg("memory"), py::arg("folder"))
      .def("add_pairs", &add_pairs, py::arg("pairs"), py::arg("check"), py::arg("count"))
      .def("add_words", &add_words, py::arg("text"))
      .def("add_positions", &add_positions, py::arg("text"), py::arg("first"))
      .def("finish", &finish)
      .def("compact", &compact)
      .def("stop", [](PyCollector& self) { self.core.stop(); })
      .def_property_readonly("key_types", [](const PyCollector& self) { return self.core.kinds().keys(); })
      .def_property_readonly("kinds", [](const PyCollector& self) { return self.core.kinds().values(); })
      .def_property_readonly("records", [](const PyCollector& self) { return self.core.records(); })
      .def_property_readonly("spilled", [](const PyCollector& self) { return self.core.spilled(); })
      .def_property_readonly("runs", [](const PyCollector& self) { return self.core.runs().size(); })
      .def("bucket_bytes", &bucket_bytes)
      .def("sample", &sample)
      .def("of_buckets", &of_buckets, py::arg("wanted"))
      .def("between", &between, py::arg("lower"), py::arg("upper"));

  py::class_<Spool>(m, "Spool")
      .def(py::init<const std::string&>(), py::arg("folder"))
      .def("put", &put, py::arg("key"), py::arg("value"))
      .def("append", &append, py::arg("stream"))
      .def("take", &take, py::arg("merge"), py::arg("bytes"))
      .def_property_readonly("count", &Spool::count)
      .def_property_readonly("key_types", [](const Spool& self) { return self.kinds().keys(); })
      .def_property_readonly("kinds", [](const Spool& self) { return self.kinds().values(); })
      .def("segments", &Spool::segments);

  py::class_<PyMerge>(m, "Merge")
      .def(py::init(&make_merge), py::arg("fold"), py::arg("order"), py::arg("sources"), py::arg("buffer"))
      .def("fill", &fill, py::arg("to"))
      .def("pairs", &pairs, py::arg("most"))
      .def("lines", &lines, py::arg("most"))
      .def("columns", &columns, py::arg("most"), py::arg("as_real"))
      .def_property_readonly("read", [](const PyMerge& self) { return self.core.read(); })
      .def_property_readonly("taken", [](const PyMerge& self) { return self.rows.taken(); });
}

}  // namespace pycoll::bind
