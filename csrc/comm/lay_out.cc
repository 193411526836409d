#include "comm/lay_out.h"

#include "core/error.h"

namespace pycoll {
namespace {

class Door {
 public:
  Door(const Call& call, int rank, int size) : call_(call), rank_(rank), size_(size) {}

  void want(size_t got, size_t wanted, const char* what) const {
    PYCOLL_CHECK(got == wanted, name_of(call_.kind), ": rank ", rank_, " got ", what, " of ", got, " elements, wanted ",
                 wanted);
  }
  Layout uneven(const std::vector<size_t>& counts, const char* what) const {
    PYCOLL_CHECK(counts.size() == size_t(size_), name_of(call_.kind), ": rank ", rank_, " got ", counts.size(), " ",
                 what, ", wanted one for each of ", size_, " ranks");
    return layout_of(counts);
  }
  Layout even(size_t chunk) const { return layout_of(std::vector<size_t>(size_t(size_), chunk)); }
  size_t chunk_of(size_t count) const {
    PYCOLL_CHECK(count % size_t(size_) == 0, name_of(call_.kind), ": rank ", rank_, " got ", count,
                 " elements, which do not divide evenly over ", size_, " ranks; give counts");
    return count / size_t(size_);
  }

 private:
  const Call& call_;
  int rank_, size_;
};

// Input and output may be one array, or a rank's own chunk of the other, where a collective is defined in place.
void check_overlap(const Call& call, int rank) {
  const std::byte *in = call.in.data, *out = call.out.data;
  if (!call.in.count || !call.out.count || in >= out + call.out.bytes() || out >= in + call.in.bytes()) return;
  const auto own = [&](ConstBuffer whole) { return whole[call.layout[size_t(rank)]].data; };
  bool in_place = false;
  switch (call.kind) {
    case Kind::allreduce:
    case Kind::reduce:
    case Kind::broadcast: in_place = in == out; break;
    case Kind::reduce_scatter:
    case Kind::scatter: in_place = out == own(call.in); break;
    case Kind::allgather:
    case Kind::gather: in_place = in == own(call.out); break;
    default: break;
  }
  PYCOLL_CHECK(
      in_place, name_of(call.kind), ": rank ", rank,
      " got an out array that overlaps its array, wanted memory of its own, or the place that in-place use has");
}

void lay_out_counts(Call& call, int rank, int size, const std::optional<std::vector<size_t>>& counts,
                    const std::optional<std::vector<size_t>>& received_counts) {
  const Door door(call, rank, size);
  const bool at_root = rank == call.root;
  const size_t me = size_t(rank);
  call.uneven = counts || received_counts;
  switch (call.kind) {
    case Kind::allreduce:
      if (call.pieces_in.empty()) door.want(call.out.count, call.in.count, "an out array");
      return;
    case Kind::reduce:
      if (call.pieces_in.empty() && at_root) door.want(call.out.count, call.in.count, "an out array");
      return;
    case Kind::reduce_scatter:
      call.layout = counts ? door.uneven(*counts, "counts") : door.even(door.chunk_of(call.in.count));
      door.want(call.in.count, total_of(call.layout), "an array");
      door.want(call.out.count, call.layout[me].count, "an out array");
      return;
    case Kind::allgather:
    case Kind::gather:
      call.layout = counts ? door.uneven(*counts, "counts") : door.even(call.in.count);
      door.want(call.in.count, call.layout[me].count, "an array");
      if (call.kind == Kind::allgather || at_root) door.want(call.out.count, total_of(call.layout), "an out array");
      return;
    case Kind::scatter:
      call.layout = counts ? door.uneven(*counts, "counts") : door.even(call.out.count);
      door.want(call.out.count, call.layout[me].count, "an out array");
      if (at_root) door.want(call.in.count, total_of(call.layout), "an array");
      return;
    case Kind::alltoall:
      PYCOLL_CHECK(bool(counts) == bool(received_counts), "alltoall: rank ", rank,
                   " got send_counts without recv_counts or the reverse, wanted both or neither");
      call.layout = counts ? door.uneven(*counts, "send_counts") : door.even(door.chunk_of(call.in.count));
      call.received = received_counts ? door.uneven(*received_counts, "recv_counts") : call.layout;
      door.want(call.in.count, total_of(call.layout), "an array");
      door.want(call.out.count, total_of(call.received), "an out array");
      return;
    default: return;
  }
}

}  // namespace

void lay_out(Call& call, int rank, int size, const std::optional<std::vector<size_t>>& counts,
             const std::optional<std::vector<size_t>>& received_counts) {
  lay_out_counts(call, rank, size, counts, received_counts);
  check_overlap(call, rank);
}

}  // namespace pycoll
