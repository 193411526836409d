#include "bind/bind.h"
#include "bind/parse.h"
#include "bind/py_call.h"
#include "bind/short_call.h"
#include "kernels/simd.h"

namespace pycoll::bind {
namespace py = pybind11;
namespace {

using Object = const py::object&;

// New arrays like `x`, with `numerator/denominator` times its elements; of the same library as x. See pycoll/arrays.py.
py::object result_like(Object x, size_t numerator, size_t denominator, const char* operation, int rank) {
  return py::module_::import("pycoll.arrays").attr("result_like")(x, numerator, denominator, operation, rank);
}
py::object result_of(Object x, size_t count) {
  return py::module_::import("pycoll.arrays").attr("result_of")(x, count);
}

py::object allreduce(const py::object& me, Object x, Object op, Object out, Object factor, Object algo, Object timeout,
                     bool wait, Object codec, Object feedback, Object step, bool everywhere) {
  // PowerSGD is several allreduces: it makes them itself.
  if (py::hasattr(codec, "_allreduce"))
    return codec.attr("_allreduce")(me, x, op, out, factor, algo, timeout, wait, feedback, step, everywhere);
  Communicator& self = me.cast<Communicator&>();
  PyCall call(self, Kind::allreduce);
  call.reduction(op, factor);
  call.compression(codec, feedback, step, everywhere);
  call.options(algo, timeout);
  if (out.is_none()) {
    call.in_place(x);
    return call.go(x, wait);
  }
  call.input(x);
  call.output(out);
  return call.go(out, wait);
}

py::object reduce(Communicator& self, Object x, Object op, int root, Object out, Object factor, Object algo,
                  Object timeout, bool wait) {
  PyCall call(self, Kind::reduce);
  call.call().root = root;
  call.reduction(op, factor);
  call.options(algo, timeout);
  if (out.is_none() && self.rank() == root) {
    call.in_place(x);
    return call.go(x, wait);
  }
  call.input(x);
  if (!out.is_none() && self.rank() == root) call.output(out);
  return call.go(out.is_none() ? x : out, wait);
}

py::object broadcast(Communicator& self, Object x, int root, Object algo, Object timeout, bool wait) {
  PyCall call(self, Kind::broadcast);
  call.call().root = root;
  call.options(algo, timeout);
  call.in_place(x);
  return call.go(x, wait);
}

size_t sum(const std::vector<size_t>& counts) {
  size_t total = 0;
  for (const size_t count : counts) total += count;
  return total;
}

size_t mine(const std::vector<size_t>& counts, int rank) {
  PYCOLL_CHECK(size_t(rank) < counts.size(), "rank ", rank, " got ", counts.size(),
               " counts, wanted one for each rank");
  return counts[size_t(rank)];
}

py::object reduce_scatter(Communicator& self, Object x, Object out, Object op, Object given, Object factor, Object algo,
                          Object timeout, bool wait) {
  const Counts counts = parse_counts(given, "reduce_scatter: counts");
  PyCall call(self, Kind::reduce_scatter);
  call.reduction(op, factor);
  call.options(algo, timeout);
  call.input(x);
  const py::object result = !out.is_none() ? out
                            : counts       ? result_of(x, mine(*counts, self.rank()))
                                           : result_like(x, 1, size_t(self.size()), "reduce_scatter", self.rank());
  call.output(result);
  return call.go(result, wait, counts);
}

py::object allgather(Communicator& self, Object x, Object out, Object given, Object algo, Object timeout, bool wait) {
  const Counts counts = parse_counts(given, "allgather: counts");
  PyCall call(self, Kind::allgather);
  call.options(algo, timeout);
  call.input(x);
  const py::object result = !out.is_none() ? out
                            : counts       ? result_of(x, sum(*counts))
                                           : result_like(x, size_t(self.size()), 1, "allgather", self.rank());
  call.output(result);
  return call.go(result, wait, counts);
}

py::object gather(Communicator& self, Object x, Object out, int root, Object given, Object algo, Object timeout,
                  bool wait) {
  const Counts counts = parse_counts(given, "gather: counts");
  PyCall call(self, Kind::gather);
  call.call().root = root;
  call.options(algo, timeout);
  call.input(x);
  if (self.rank() != root) return call.go(py::none(), wait, counts);
  const py::object result = !out.is_none() ? out
                            : counts       ? result_of(x, sum(*counts))
                                           : result_like(x, size_t(self.size()), 1, "gather", self.rank());
  call.output(result);
  return call.go(result, wait, counts);
}

py::object scatter(Communicator& self, Object x, Object out, int root, Object given, Object algo, Object timeout,
                   bool wait) {
  const Counts counts = parse_counts(given, "scatter: counts");
  PyCall call(self, Kind::scatter);
  call.call().root = root;
  call.options(algo, timeout);
  py::object result = out;
  if (self.rank() == root) {
    call.input(x);
    if (out.is_none())
      result =
          counts ? result_of(x, mine(*counts, root)) : result_like(x, 1, size_t(self.size()), "scatter", self.rank());
  }
  PYCOLL_CHECK(!result.is_none(), "scatter: rank ", self.rank(),
               " got no out array, wanted one: only the root knows the element type");
  call.output(result);
  call.call().in.dtype = call.call().out.dtype;
  return call.go(result, wait, counts);
}

py::object alltoall(Communicator& self, Object x, Object out, Object given_sent, Object given_received, Object algo,
                    Object timeout, bool wait) {
  const Counts send_counts = parse_counts(given_sent, "alltoall: send_counts");
  const Counts recv_counts = parse_counts(given_received, "alltoall: recv_counts");
  PyCall call(self, Kind::alltoall);
  call.options(algo, timeout);
  call.input(x);
  const py::object result = !out.is_none() ? out
                            : recv_counts  ? result_of(x, sum(*recv_counts))
                                           : result_like(x, 1, 1, "alltoall", self.rank());
  call.output(result);
  return call.go(result, wait, send_counts, recv_counts);
}

py::object barrier(Communicator& self, Object timeout, bool wait) {
  PyCall call(self, Kind::barrier);
  call.options(py::none(), timeout);
  return call.go(py::none(), wait);
}

uint64_t tag_of(const char* operation, int64_t tag) {
  PYCOLL_CHECK(tag >= 0, operation, ": tag is ", tag, ", wanted at least 0");
  return uint64_t(tag);
}

py::object send(Communicator& self, Object x, int to, int64_t tag, Object timeout, bool wait) {
  PyCall call(self, Kind::send);
  call.call().root = to;
  call.call().tag = tag_of("send", tag);
  call.options(py::none(), timeout);
  call.input(x);
  return call.go(x, wait);
}

py::object recv(Communicator& self, Object x, std::optional<int> source, int64_t tag, Object timeout, bool wait) {
  PYCOLL_CHECK(source || !wait, "recv: rank ", self.rank(),
               " named no source, which goes with wait=False: the Work says who it was");
  PyCall call(self, Kind::recv);
  call.call().root = source.value_or(kAnySource);
  call.call().tag = tag_of("recv", tag);
  call.options(py::none(), timeout);
  call.output(x);
  return call.go(x, wait);
}

py::object sendrecv(Communicator& self, Object x, int to, Object out, int source, Object timeout, bool wait) {
  PyCall call(self, Kind::sendrecv);
  call.call().root = to;
  call.call().source = source;
  call.options(py::none(), timeout);
  call.input(x);
  call.output(out);
  return call.go(out, wait);
}

py::dict stats(const Communicator& self) {
  const Communicator::Stats s = self.stats();
  py::dict result;
  result["operations"] = s.operations;
  result["wire_bytes"] = s.wire_bytes;
  result["failures"] = s.failures;
  return result;
}

// (collective, shares memory, ranks, bytes, algorithm), as the tuned table's file has them.
using RuleTuple = std::tuple<std::string, bool, int, size_t, std::string>;

std::shared_ptr<Communicator> make(std::shared_ptr<ShmTransport> node, std::shared_ptr<Transport> world, double timeout,
                                   Object algo, std::vector<int> node_of, const std::vector<RuleTuple>& rules) {
  kernels::simd();  // raises here, not in a collective, if PYCOLL_SIMD is wrong
  std::vector<algo::Rule> table;
  for (const auto& [kind, shared, ranks, bytes, name] : rules)
    for (int k = 0; k < kKinds; ++k)
      if (name_of(Kind(k)) == kind)
        table.push_back(
            {Kind(k), shared ? algo::Medium::shared : algo::Medium::messages, ranks, bytes, algo::parse_algo(name)});
  Options options{timeout, parse_algo(algo), algo::Table(std::move(table)), std::move(node_of)};
  // Its engine may need the GIL to give arrays back before it ends: the last reference is dropped without holding it.
  return {new Communicator(std::move(node), std::move(world), std::move(options)), [](Communicator* last) {
            if (!PyGILState_Check()) return delete last;
            const py::gil_scoped_release unlocked;
            delete last;
          }};
}

const char* const kAllreduceDoc =
    R"(Combines `x` of all ranks element by element; every rank gets the result, the same bits on each.

x: NumPy array, torch CPU tensor, or anything with the buffer protocol or DLPack; C-contiguous, writable unless `out` is
given; the same element type and count on every rank. Or a list of arrays of one element type: one operation for all.
op: "sum", "avg", "min", "max", "prod", "and", "or", "xor", or "premul_sum" (x * factor is summed; floating types).
out: where the result goes; none: in place, into x.
algo: see pycoll.algorithms("allreduce"); none: by measurement. timeout: seconds; none: the communicator's.
wait: False returns a Work at once; x must then be left alone until it is done.
codec: how numbers are encoded on their way, pycoll.Int8() for example (f32, f16 or bf16; sum, avg or premul_sum); alike
on all ranks. Where nodes have several ranks, only between nodes, unless `everywhere`. feedback: a pycoll.Feedback of as
many elements, which adds to x what was lost before and keeps what is lost now. step: number of the operation that
random numbers depend on, alike on all ranks; none: the communicator counts.

Returns the array with the result (or the Work). float16 and bfloat16 are summed in float32 and rounded once.
Raises InvalidArgument, MismatchError (ranks called different operations), PeerFailed, Timeout, TransportError.)";

}  // namespace

void bind_communicator(py::module_& m) {
  const auto none = py::none();
  py::class_<Communicator, std::shared_ptr<Communicator>> communicator(m, "Communicator");
  communicator
      .def(py::init(&make), py::arg("node"), py::arg("world"), py::arg("timeout"), py::arg("algo"), py::arg("node_of"),
           py::arg("rules"))
      .def_property_readonly("rank", &Communicator::rank, "This process's number in the group, 0 to size - 1.")
      .def_property_readonly("size", &Communicator::size, "Number of ranks.")
      .def_property_readonly("node_rank", &Communicator::node_rank,
                             "This process's number among the ranks of its node.")
      .def_property_readonly("node_size", &Communicator::node_size, "Number of ranks on this node.")
      .def_property_readonly("transport", &Communicator::transport, "\"shm\", \"mpi\" or \"alone\".")
      .def_property("timeout", &Communicator::timeout, &Communicator::set_timeout,
                    "Deadline of an operation, in seconds.")
      .def("_settle", &Communicator::settle, py::call_guard<py::gil_scoped_release>())
      .def("_close", &Communicator::close, py::call_guard<py::gil_scoped_release>())
      .def("_abort", &Communicator::abort, py::arg("why"), py::call_guard<py::gil_scoped_release>())
      .def_property_readonly("failed", &Communicator::failed, "True after a failure that the group cannot go on after.")
      .def_property_readonly("closed", &Communicator::closed)
      .def("_add_region", &Communicator::add_region, py::arg("id"), py::arg("segment"), py::arg("stride"))
      .def("_release_region", &Communicator::release_region, py::arg("id"))
      .def("stats", &stats,
           "Counts since the start: operations, wire_bytes (sent, and read or written in peers' memory), failures.")
      .def("allreduce", &allreduce, py::arg("x"), py::arg("op") = "sum", py::kw_only(), py::arg("out") = none,
           py::arg("factor") = none, py::arg("algo") = none, py::arg("timeout") = none, py::arg("wait") = true,
           py::arg("codec") = none, py::arg("feedback") = none, py::arg("step") = none, py::arg("everywhere") = false,
           kAllreduceDoc)
      .def("reduce", &reduce, py::arg("x"), py::arg("op") = "sum", py::arg("root") = 0, py::kw_only(),
           py::arg("out") = none, py::arg("factor") = none, py::arg("algo") = none, py::arg("timeout") = none,
           py::arg("wait") = true,
           "Like allreduce, but only `root` gets the result: in `out`, or in place. Other ranks' x is left as it is.")
      .def("broadcast", &broadcast, py::arg("x"), py::arg("root") = 0, py::kw_only(), py::arg("algo") = none,
           py::arg("timeout") = none, py::arg("wait") = true,
           "Copies root's `x` into every rank's. x may be a list of arrays.")
      .def("reduce_scatter", &reduce_scatter, py::arg("x"), py::arg("out") = none, py::arg("op") = "sum", py::kw_only(),
           py::arg("counts") = none, py::arg("factor") = none, py::arg("algo") = none, py::arg("timeout") = none,
           py::arg("wait") = true,
           "Combines `x`, made of one chunk a rank in rank order; rank r gets chunk r in `out`. Chunks are equal "
           "unless\n"
           "`counts` gives the elements of each, alike on all ranks. out: none makes a new array. Otherwise like "
           "allreduce.")
      .def("allgather", &allgather, py::arg("x"), py::arg("out") = none, py::kw_only(), py::arg("counts") = none,
           py::arg("algo") = none, py::arg("timeout") = none, py::arg("wait") = true,
           "Puts every rank's `x` into `out`, in rank order. counts: elements of each, if they differ. out: none makes "
           "a new array.")
      .def("gather", &gather, py::arg("x"), py::arg("out") = none, py::arg("root") = 0, py::kw_only(),
           py::arg("counts") = none, py::arg("algo") = none, py::arg("timeout") = none, py::arg("wait") = true,
           "Like allgather, but only `root` gets `out`; other ranks get None.")
      .def(
          "scatter", &scatter, py::arg("x"), py::arg("out") = none, py::arg("root") = 0, py::kw_only(),
          py::arg("counts") = none, py::arg("algo") = none, py::arg("timeout") = none, py::arg("wait") = true,
          "Gives chunk r of root's `x` to rank r, in `out`. x is looked at on root alone; out is needed on the others.")
      .def("alltoall", &alltoall, py::arg("x"), py::arg("out") = none, py::kw_only(), py::arg("send_counts") = none,
           py::arg("recv_counts") = none, py::arg("algo") = none, py::arg("timeout") = none, py::arg("wait") = true,
           "Chunk p of `x` goes to rank p; what rank p sent is chunk p of `out`. send_counts and recv_counts: elements "
           "to and\n"
           "from each rank, if they differ; what one sends the other must expect.")
      .def("barrier", &barrier, py::kw_only(), py::arg("timeout") = none, py::arg("wait") = true,
           "Returns when all ranks have called it.")
      .def("send", &send, py::arg("x"), py::arg("to"), py::kw_only(), py::arg("tag") = 0, py::arg("timeout") = none,
           py::arg("wait") = true,
           "Sends `x` to rank `to`, which calls recv with as many elements of the same type, and the same tag.")
      .def("recv", &recv, py::arg("x"), py::arg("source"), py::kw_only(), py::arg("tag") = 0, py::arg("timeout") = none,
           py::arg("wait") = true,
           "Receives into `x` from rank `source`. Messages of one rank and one tag arrive in the order sent; those of "
           "other\n"
           "tags wait for their receives. source: None takes a message from any rank; only with wait=False, whose Work "
           "says\n"
           "who sent it.")
      .def("sendrecv", &sendrecv, py::arg("x"), py::arg("to"), py::arg("out"), py::arg("source"), py::kw_only(),
           py::arg("timeout") = none, py::arg("wait") = true,
           "Sends `x` to rank `to` and receives into `out` from rank `source`, both at once.");
  shorten_allreduce(communicator);
}

}  // namespace pycoll::bind
