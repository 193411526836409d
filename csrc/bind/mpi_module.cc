// _mpi: the MPI transport for Python. Built only where an MPI is found; loaded only when it is used.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <atomic>
#include <cstring>
#include <functional>
#include <future>
#include <thread>
#include <utility>

#include "bind/errors.h"
#include "core/poll.h"
#include "transport/mpi.h"

namespace py = pybind11;

namespace {

using namespace pycoll;

MPI_Comm comm_of(uintptr_t handle) {
  MPI_Comm comm;
  static_assert(sizeof comm <= sizeof handle);
  std::memcpy(&comm, &handle, sizeof comm);
  return comm;
}

uintptr_t handle_of(MPI_Comm comm) {
  uintptr_t handle = 0;
  std::memcpy(&handle, &comm, sizeof comm);
  return handle;
}

// The thread level that this process has, MPI being initialised if it was not. True second: by this call.
py::tuple initialize() {
  int initialized = 0, level = 0;
  PYCOLL_MPI(MPI_Initialized(&initialized));
  if (initialized)
    PYCOLL_MPI(MPI_Query_thread(&level));
  else
    PYCOLL_MPI(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &level));
  return py::make_tuple(level, !initialized);
}

std::atomic<int> making{0};  // groups, by threads of make_in_time()

void finalize() {
  for (const Deadline moment = Deadline::after(0.3); making != 0 && !moment.passed(); std::this_thread::yield()) {
  }
  int finalized = 0;
  MPI_Finalized(&finalized);
  if (!finalized && making == 0) MPI_Finalize();  // it would wait for a group that is never made
}

// Set-up waits like everything else: with a deadline.
void complete(MPI_Request request, const char* what, double seconds) {
  const py::gil_scoped_release unlocked;
  const Deadline deadline = Deadline::after(seconds);
  for (int done = 0;; std::this_thread::yield()) {
    PYCOLL_MPI(MPI_Test(&request, &done, MPI_STATUS_IGNORE));
    if (done) return;
    poll_interrupt();
    PYCOLL_CHECK_AS(Timeout, !deadline.passed(), what, " was not done by all ranks within ", seconds, " s");
  }
}

// A communicator of the same ranks for pycoll alone.
uintptr_t duplicate(uintptr_t handle, double seconds) {
  MPI_Comm copy;
  MPI_Request request;
  PYCOLL_MPI(MPI_Comm_idup(comm_of(handle), &copy, &request));
  complete(request, "MPI_Comm_idup", seconds);
  return handle_of(copy);
}

// MPI has no form of the calls that make groups which could be given a deadline. A thread makes them, and is left to it
// when time is up.
uintptr_t make_in_time(std::function<MPI_Comm()> make, const char* what, double seconds) {
  ++making;
  std::packaged_task<MPI_Comm()> task([make = std::move(make)] {
    struct AtEnd {
      ~AtEnd() { --making; }
    } at_end;
    return make();
  });
  std::future<MPI_Comm> made = task.get_future();
  const Deadline deadline = Deadline::after(seconds);
  std::thread(std::move(task)).detach();
  while (made.wait_for(std::chrono::milliseconds(20)) != std::future_status::ready) {
    poll_interrupt();
    PYCOLL_CHECK_AS(Timeout, !deadline.passed(), what, " was not done by all ranks within ", seconds, " s");
  }
  const MPI_Comm part = made.get();
  if (part == MPI_COMM_NULL) return 0;
  PYCOLL_MPI(MPI_Comm_set_errhandler(part, MPI_ERRORS_RETURN));
  return handle_of(part);
}

// The group of this rank's color; negative colors get none (0).
uintptr_t split(uintptr_t handle, int color, int key, double seconds) {
  const auto make = [=] {
    MPI_Comm part;
    PYCOLL_MPI(MPI_Comm_split(comm_of(handle), color < 0 ? MPI_UNDEFINED : color, key, &part));
    return part;
  };
  return make_in_time(make, "MPI_Comm_split", seconds);
}

// A communicator of some ranks of `handle`, in the order given. Called by these ranks alone.
uintptr_t create_group(uintptr_t handle, std::vector<int> ranks, int tag, double seconds) {
  const auto make = [handle, tag, ranks = std::move(ranks)] {
    MPI_Group all, some;
    MPI_Comm part;
    PYCOLL_MPI(MPI_Comm_group(comm_of(handle), &all));
    PYCOLL_MPI(MPI_Group_incl(all, int(ranks.size()), ranks.data(), &some));
    PYCOLL_MPI(MPI_Comm_create_group(comm_of(handle), some, tag, &part));
    PYCOLL_MPI(MPI_Group_free(&some));
    PYCOLL_MPI(MPI_Group_free(&all));
    return part;
  };
  return make_in_time(make, "MPI_Comm_create_group", seconds);
}

py::tuple rank_and_size(uintptr_t handle) {
  int rank, size;
  PYCOLL_MPI(MPI_Comm_rank(comm_of(handle), &rank));
  PYCOLL_MPI(MPI_Comm_size(comm_of(handle), &size));
  return py::make_tuple(rank, size);
}

// Frees what split() or create_group() made.
void release(uintptr_t handle) {
  int finalized = 0;
  MPI_Finalized(&finalized);
  MPI_Comm comm = comm_of(handle);
  if (!finalized) PYCOLL_MPI(MPI_Comm_free(&comm));
}

// Every rank's bytes, which may differ in number, in rank order.
std::vector<py::bytes> allgather(uintptr_t handle, const std::string& mine, double seconds) {
  struct Buffers {
    std::string mine, all;
    int count, total = 0;
    std::vector<int> counts, starts;
  };
  const MPI_Comm comm = comm_of(handle);
  int size = 0;
  PYCOLL_MPI(MPI_Comm_size(comm, &size));
  const size_t ranks = size_t(size);
  // Left alive if a wait raises: MPI may still write to them.
  auto* const b = new Buffers{mine, "", int(mine.size()), 0, std::vector<int>(ranks), std::vector<int>(ranks)};
  MPI_Request request;
  PYCOLL_MPI(MPI_Iallgather(&b->count, 1, MPI_INT, b->counts.data(), 1, MPI_INT, comm, &request));
  complete(request, "exchange of addresses", seconds);
  for (size_t i = 0; i < ranks; ++i) b->starts[i] = std::exchange(b->total, b->total + b->counts[i]);
  b->all.resize(size_t(b->total));
  PYCOLL_MPI(MPI_Iallgatherv(b->mine.data(), b->count, MPI_BYTE, b->all.data(), b->counts.data(), b->starts.data(),
                             MPI_BYTE, comm, &request));
  complete(request, "exchange of addresses", seconds);
  std::vector<py::bytes> parts;
  for (size_t i = 0; i < ranks; ++i) parts.emplace_back(b->all.substr(size_t(b->starts[i]), size_t(b->counts[i])));
  delete b;
  return parts;
}

std::string library() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING];
  int length = 0;
  PYCOLL_MPI(MPI_Get_library_version(text, &length));
  return std::string(text, size_t(length));
}

std::shared_ptr<Transport> transport(uintptr_t handle, std::shared_ptr<ShmTransport> node,
                                     std::vector<Member> members) {
  return std::make_shared<MpiTransport>(comm_of(handle), std::move(node), std::move(members));
}

}  // namespace

PYBIND11_MODULE(_mpi, m) {
  m.doc() = "MPI for pycoll: bootstrap and the message transport.";
  bind::translate_errors();
  py::module_::import("pycoll._core");  // registers Transport, ShmTransport, Member and the error classes
  m.attr("THREAD_MULTIPLE") = int(MPI_THREAD_MULTIPLE);
  m.def("world", [] { return handle_of(MPI_COMM_WORLD); }, "The handle of MPI_COMM_WORLD.");
  m.def("initialize", &initialize);
  m.def("finalize", &finalize, py::call_guard<py::gil_scoped_release>());
  m.def("duplicate", &duplicate, py::arg("handle"), py::arg("seconds"));
  m.def("split", &split, py::arg("handle"), py::arg("color"), py::arg("key"), py::arg("seconds"),
        py::call_guard<py::gil_scoped_release>());
  m.def("create_group", &create_group, py::arg("handle"), py::arg("ranks"), py::arg("tag"), py::arg("seconds"),
        py::call_guard<py::gil_scoped_release>());
  m.def("release", &release, py::arg("handle"), py::call_guard<py::gil_scoped_release>());
  m.def("rank_and_size", &rank_and_size, py::arg("handle"));
  m.def("allgather", &allgather, py::arg("handle"), py::arg("mine"), py::arg("seconds"));
  m.def("library", &library, "The MPI library's own description of itself.");
  m.def("transport", &transport, py::arg("handle"), py::arg("node"), py::arg("members"));
}
