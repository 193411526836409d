#include <pybind11/stl.h>

#include <atomic>

#include "bind/bind.h"
#include "transport/segment.h"
#include "transport/shm.h"

namespace pycoll::bind {
namespace py = pybind11;
namespace {

Member member(int rank, std::string host, int pid, uint64_t started) {
  return {rank, std::move(host), {pid, started}};
}

// One rank's part of a segment, for as long as any array looks at it. `mark`, a byte of the segment, tells the peers
// when none does any more.
class Part {
 public:
  Part(std::shared_ptr<Segment> segment, size_t offset, size_t bytes, size_t mark)
      : segment_(std::move(segment)), offset_(offset), bytes_(bytes), mark_(mark) {
    PYCOLL_CHECK(offset + bytes <= segment_->bytes() && mark < segment_->bytes(), "segment: bytes ", offset, " to ",
                 offset + bytes, " with mark ", mark, " are not in its ", segment_->bytes());
  }
  Part(const Part&) = delete;
  Part& operator=(const Part&) = delete;
  ~Part() {
    std::atomic_ref(*reinterpret_cast<uint8_t*>(segment_->data() + mark_)).store(1, std::memory_order_release);
  }

  py::buffer_info buffer() const {
    return {segment_->data() + offset_, 1, py::format_descriptor<uint8_t>::format(), py::ssize_t(bytes_)};
  }

 private:
  std::shared_ptr<Segment> segment_;
  size_t offset_, bytes_, mark_;
};

bool all_marked(const Segment& segment, size_t first, size_t count) {
  PYCOLL_CHECK(first + count <= segment.bytes(), "segment: marks ", first, " to ", first + count, " are not in its ",
               segment.bytes());
  for (size_t i = first; i < first + count; ++i)
    if (!std::atomic_ref(*reinterpret_cast<uint8_t*>(segment.data() + i)).load(std::memory_order_acquire)) return false;
  return true;
}

}  // namespace

void bind_transport(py::module_& m) {
  py::class_<Segment, std::shared_ptr<Segment>>(m, "Segment", "Memory shared by the ranks of a node.")
      .def_static("create", &Segment::create, py::arg("bytes"))
      .def_static("open", &Segment::open, py::arg("pid"), py::arg("fd"), py::arg("bytes"))
      .def_static("local", &Segment::local, py::arg("bytes"))
      .def("close_fd", &Segment::close_fd)
      .def("all_marked", &all_marked, py::arg("first"), py::arg("count"))
      .def_property_readonly("fd", &Segment::fd)
      .def_property_readonly("bytes", &Segment::bytes);

  py::class_<Part>(m, "Part", py::buffer_protocol(), "One rank's part of a segment; arrays made from it keep it.")
      .def(py::init<std::shared_ptr<Segment>, size_t, size_t, size_t>(), py::arg("segment"), py::arg("offset"),
           py::arg("bytes"), py::arg("mark"))
      .def_buffer(&Part::buffer);

  py::class_<Member>(m, "Member", "One rank: its number, host, and process (pid 0: a thread of this one).")
      .def(py::init(&member), py::arg("rank"), py::arg("host"), py::arg("pid") = 0, py::arg("started") = 0);

  m.def("process_id", [] {
    const ProcessId self = ProcessId::self();
    return py::make_tuple(self.pid, self.started);
  });

  py::class_<Transport, std::shared_ptr<Transport>>(m, "Transport")
      .def_property_readonly("rank", &Transport::rank)
      .def_property_readonly("size", &Transport::size)
      .def_property_readonly("name", &Transport::name);

  py::class_<ShmTransport, Transport, std::shared_ptr<ShmTransport>>(m, "ShmTransport", "Ranks that share memory.")
      .def(py::init<std::shared_ptr<Segment>, int, std::vector<Member>, int>(), py::arg("segment"), py::arg("rank"),
           py::arg("members"), py::arg("cores"))
      .def_static("segment_bytes", &ShmTransport::segment_bytes, py::arg("size"))
      .def("leave", [](ShmTransport& self) { self.board().leave(); });
}

}  // namespace pycoll::bind
