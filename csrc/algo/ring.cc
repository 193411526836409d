// Segmented ring. Patarasu and Yuan 2009, "Bandwidth optimal all-reduce algorithms for clusters of workstations".
//
// Cost of P ranks, S bytes, chunk c_i of rank i (any layout; in an allreduce Partition{count, P}), k segments a chunk:
//   reduce_scatter  (P-1)k rounds   S - c_r bytes sent by rank r
//   allgather       (P-1)k rounds   S - c_(r+1)
//   allreduce      2(P-1)k rounds   2S - c_r - c_(r+1), which is 2S(P-1)/P where P divides the count
//   k = l ceil(largest chunk / l s), where l = largest / 16 KiB, but at least 1 and at most d: the transport's depth d
//   and segment bytes s (Transport::pipeline: 2 and 256 KiB over memory). Uneven chunks: these rounds at most.
// Chunk i is summed in the order of ranks i+1, i+2, ..., P-1, 0, ..., i.
//
// `in` is read once and `out` written once: sums on their way stay in a few segments of scratch, which a cache holds.
#include "pattern/ring.h"

#include <algorithm>

#include "algo/collectives.h"
#include "algo/local.h"

namespace pycoll::algo {
namespace {

constexpr size_t kSegmentLeast = 16 << 10;  // cut no finer: a message costs some microseconds, whatever its length

// How a chunk is cut: in `blocks` blocks of `lanes` segments of `count` elements; `lanes` of them are in flight, so
// that one is reduced as others travel. The same for all ranks and chunks.
struct Cut {
  size_t blocks, lanes, count;
};
Cut cut_of(const Layout& layout, DType dtype, Pipeline pipeline) {
  const size_t largest = largest_of(layout), bytes = largest * size_of(dtype);
  const size_t lanes = std::clamp<size_t>(bytes / kSegmentLeast, 1, pipeline.depth), block = lanes * pipeline.bytes;
  const size_t blocks = std::max<size_t>(1, (bytes + block - 1) / block), segments = blocks * lanes;
  return {blocks, lanes, (largest + segments - 1) / segments};
}

struct Job {
  ConstBuffer in;
  Buffer own;  // chunk of this rank: result of the reduce-scatter, and what the allgather sends first
  Buffer all;  // allgather: all chunks
  const Layout& layout;
  Reduction reduction;
  int first_step, last_step;  // of pattern::Ring
};

class Relay {
 public:
  Relay(Net& net, const Job& job, Scratch* scratch)
      : net_(net),
        job_(job),
        ring_{net.rank(), net.size()},
        cut_(cut_of(job.layout, job.own.dtype, net.pipeline())),
        flights_(cut_.lanes) {
    if (scratch) slots_ = borrow(*scratch, 2 * cut_.lanes * cut_.count, job.own.dtype);
  }

  // Items are (block, step, lane), the lane fastest: item i sends what item i - lanes has received and reduced.
  void begin() {
    for (size_t i = 0; i < cut_.lanes; ++i) start(i);
  }
  // Before item i starts, all items before i - lanes + 1 are finished, and the `lanes` - 1 after those are in flight.
  void end() {
    const size_t lanes = cut_.lanes, items = cut_.blocks * size_t(job_.last_step - job_.first_step) * lanes;
    for (size_t i = lanes; i < items + lanes; ++i) {
      finish(i - lanes);
      if (i < items) start(i);
    }
  }
  void run() {
    begin();
    end();
  }

 private:
  struct Flight {
    Transport::Ticket received = 0, sent = 0;
  };
  struct Item {
    int step;
    size_t segment;
  };
  Item item(size_t i) const {
    const size_t steps = size_t(job_.last_step - job_.first_step), row = i / cut_.lanes;
    return {job_.first_step + int(row % steps), row / steps * cut_.lanes + i % cut_.lanes};
  }

  void start(size_t i) {
    const auto [step, segment] = item(i);
    const Range sent = part(step, segment), received = part(step + 1, segment);
    Flight& flight = flights_[i % cut_.lanes];
    if (received.count) flight.received = net_.post_recv(ring_.prev(), landing(i, step, received).span());
    if (sent.count) flight.sent = net_.post_send(ring_.next(), source(i, step, segment).span());
  }

  void finish(size_t i) {
    const auto [step, segment] = item(i);
    const Range sent = part(step, segment), received = part(step + 1, segment);
    const Flight& flight = flights_[i % cut_.lanes];
    if (received.count) {
      net_.wait(flight.received);
      if (step < ring_.steps()) {
        const bool last = step + 1 == ring_.steps();
        const Buffer sum = landing(i, step, received), result = last ? own(segment) : sum;
        kernels::reduce_into(result, sum, job_.in[received], job_.reduction.op);
        if (last) complete(result, job_.reduction.divisor);
      }
    }
    if (sent.count) net_.wait(flight.sent);
  }

  // Sums land in the slot that was sent from two items of this lane ago; finished chunks where they belong.
  Buffer landing(size_t i, int step, Range range) const {
    if (step >= ring_.steps()) return job_.all[range];
    return slots_[{i % (2 * cut_.lanes) * cut_.count, range.count}];
  }
  ConstBuffer source(size_t i, int step, size_t segment) const {
    const Range range = part(step, segment);
    if (step == 0) return job_.in[range];
    if (step == ring_.steps()) return own(segment);
    return landing(i - cut_.lanes, step - 1, range);
  }
  Range part(int step, size_t segment) const {
    return segment_of(job_.layout[size_t(ring_.chunk(step))], segment, cut_.count);
  }
  Buffer own(size_t segment) const { return job_.own[segment_of({0, job_.own.count}, segment, cut_.count)]; }

  Net& net_;
  const Job& job_;
  const pattern::Ring ring_;
  const Cut cut_;
  Buffer slots_;
  std::vector<Flight> flights_;  // by lane
};

}  // namespace

void ring_reduce_scatter(Net& net, ConstBuffer in, Buffer out, const Layout& layout, Reduction reduction,
                         Scratch& scratch) {
  if (net.size() == 1) return alone(in, out, reduction);
  const int steps = net.size() - 1;
  Relay(net, {in, out, {}, layout, reduction, 0, steps}, &scratch).run();
}

void ring_allgather(Net& net, Buffer x, const Layout& layout) {
  if (net.size() == 1) return;
  const int steps = net.size() - 1;
  const Buffer own = x[layout[size_t(net.rank())]];
  Relay(net, {{}, own, x, layout, {ReduceOp::sum}, steps, 2 * steps}, nullptr).run();
}

struct RingAllreduce::State {
  Layout layout;
  Job job;
  Relay relay;
  State(Net& net, ConstBuffer in, Buffer out, Reduction reduction, Scratch& scratch)
      : layout(layout_of(Partition{in.count, size_t(net.size())})),
        job{in, out[layout[size_t(net.rank())]], out, layout, reduction, 0, 2 * (net.size() - 1)},
        relay(net, job, &scratch) {}
};

RingAllreduce::RingAllreduce(Net& net, ConstBuffer in, Buffer out, Reduction reduction, Scratch& scratch) {
  if (net.size() == 1) {
    alone(in, out, reduction);
    return;
  }
  state_ = std::make_unique<State>(net, in, out, reduction, scratch);
  state_->relay.begin();
}
RingAllreduce::~RingAllreduce() = default;

void RingAllreduce::finish() {
  if (state_) state_->relay.end();
}

void ring_allreduce(Net& net, ConstBuffer in, Buffer out, Reduction reduction, Scratch& scratch) {
  RingAllreduce(net, in, out, reduction, scratch).finish();
}

}  // namespace pycoll::algo
