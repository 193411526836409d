#include "bind/py_call.h"

#include <frameobject.h>

#include <cmath>

#include "bind/parse.h"
#include "comm/lay_out.h"

namespace pycoll::bind {
namespace {

bool is_list(const py::object& x) {
  return PyList_CheckExact(x.ptr()) || PyTuple_CheckExact(x.ptr());
}

}  // namespace

std::string call_site() {
  py::object frame = py::reinterpret_borrow<py::object>(reinterpret_cast<PyObject*>(PyEval_GetFrame()));
  while (frame && !frame.is_none()) {
    const std::string module = py::str(frame.attr("f_globals").attr("get")("__name__", ""));
    if (module != "pycoll" && module.rfind("pycoll.", 0) != 0) {
      const std::string file = py::str(frame.attr("f_code").attr("co_filename"));
      return concat(file.substr(file.rfind('/') + 1), ":", int(py::cast<int>(frame.attr("f_lineno"))));
    }
    frame = frame.attr("f_back");
  }
  return "";
}

std::string locked_call_site() {
  const py::gil_scoped_acquire locked;
  return call_site();
}

PyCall::PyCall(Communicator& communicator, Kind kind) : communicator_(communicator), name_(name_of(kind).data()) {
  call_.kind = kind;
  borrowed_.reserve(2);
}

const Borrowed& PyCall::borrow(const py::handle& x, Access access) {
  return borrowed_.emplace_back(x, name_, access);
}

void PyCall::input(const py::object& x) {
  if (!is_list(x)) {
    call_.in = borrow(x, Access::read).buffer();
    has_input_ = true;
    return;
  }
  const bool takes_lists = call_.kind == Kind::allreduce || call_.kind == Kind::reduce || call_.kind == Kind::broadcast;
  PYCOLL_CHECK(takes_lists, name_, ": rank ", communicator_.rank(),
               " got a list, wanted one array: allreduce, reduce and broadcast take lists");
  PYCOLL_CHECK(py::len(x) > 0, name_, ": got an empty list, wanted at least one array");
  for (const py::handle item : x) {
    const Buffer& piece = borrow(item, Access::read).buffer();
    PYCOLL_CHECK(call_.pieces_in.empty() || piece.dtype == call_.pieces_in[0].dtype, name_, ": got a list of ",
                 name_of(call_.pieces_in[0].dtype), " and ", name_of(piece.dtype), " arrays, wanted one element type");
    call_.pieces_in.push_back(piece);
  }
}

void PyCall::output(const py::object& x) {
  if (!is_list(x)) {
    PYCOLL_CHECK(call_.pieces_in.empty(), name_, ": rank ", communicator_.rank(),
                 " got a list of arrays and one out array, wanted a list of out arrays");
    const Buffer out = borrow(x, Access::write);
    PYCOLL_CHECK(!has_input_ || out.dtype == call_.in.dtype, name_, ": rank ", communicator_.rank(), " got ",
                 name_of(call_.in.dtype), " and an out array of ", name_of(out.dtype), ", wanted one element type");
    call_.out = out;
    return;
  }
  PYCOLL_CHECK(py::len(x) == call_.pieces_in.size(), name_, ": got ", py::len(x), " out arrays for ",
               call_.pieces_in.size(), " arrays");
  for (const py::handle item : x) {
    const Buffer& piece = borrow(item, Access::write).buffer();
    const ConstBuffer& source = call_.pieces_in[call_.pieces_out.size()];
    PYCOLL_CHECK(piece.count == source.count && piece.dtype == source.dtype, name_, ": got an out array ",
                 name_of(piece.dtype), "[", piece.count, "] for ", name_of(source.dtype), "[", source.count, "]");
    call_.pieces_out.push_back(piece);
  }
}

void PyCall::in_place(const py::object& x) {
  if (!is_list(x)) {
    call_.out = borrow(x, Access::write);
    call_.in = call_.out;
    return;
  }
  input(x);
  output(x);
}

void PyCall::options(const py::object& algo, const py::object& timeout) {
  call_.algo = parse_algo(algo);
  if (timeout.is_none()) return;
  call_.timeout = number(timeout, name_, "timeout");
  PYCOLL_CHECK(call_.timeout > 0, name_, ": timeout is ", call_.timeout, " s, wanted more than 0");
}

void PyCall::compression(const py::object& codec, const py::object& feedback, const py::object& step, bool everywhere) {
  if (codec.is_none()) {
    PYCOLL_CHECK(feedback.is_none() && step.is_none() && !everywhere, name_,
                 ": feedback, step and everywhere go with a codec, and only with one");
    return;
  }
  call_.compression.codec = codec_of(codec, name_);
  call_.compression.everywhere = everywhere;
  if (!step.is_none()) {
    const double number = bind::number(step, name_, "step");
    PYCOLL_CHECK(number >= 0 && number == std::floor(number), name_, ": step is ", number,
                 ", wanted a whole number of at least 0");
    call_.compression.step = uint64_t(number);
  }
  if (feedback.is_none()) return;
  PYCOLL_CHECK(py::isinstance<PyFeedback>(feedback), name_, ": got feedback ", std::string(py::repr(feedback)),
               ", wanted a pycoll.Feedback");
  call_.compression.feedback = &feedback.cast<PyFeedback&>().state;
  feedback_ = feedback;
}

void PyCall::reduction(const py::object& op, const py::object& factor) {
  call_.op = parse_op(op);
  PYCOLL_CHECK((call_.op == ReduceOp::premul_sum) == !factor.is_none(), name_,
               ": factor goes with op=\"premul_sum\", and only with it");
  if (!factor.is_none()) call_.factor = number(factor, name_, "factor");
}

py::object PyCall::go(const py::object& result, bool wait, const Counts& counts, const Counts& received_counts) {
  lay_out(call_, communicator_.rank(), communicator_.size(), counts, received_counts);
  if (wait) {
    call_.site = locked_call_site;
    const py::gil_scoped_release unlocked;
    communicator_.run(call_);
    // `result` is copied below, with the GIL again.
  } else {
    call_.site = [site = call_site()] { return site; };
    // The engine drops the arrays from its own thread.
    struct Kept {
      std::vector<Borrowed> arrays;
      py::object result, feedback;
    };
    const std::shared_ptr<void> kept(new Kept{std::move(borrowed_), result, feedback_}, [](Kept* k) {
      if (!Py_IsInitialized()) return;
      const py::gil_scoped_acquire locked;
      delete k;
    });
    PyWork work{nullptr, result};
    {
      const py::gil_scoped_release unlocked;
      work.work = communicator_.submit(std::move(call_), kept);
    }
    return py::cast(std::move(work));
  }
  return result;
}

}  // namespace pycoll::bind
