// Two-shot allreduce: every rank encodes each chunk and sends it to its owner, who decodes and adds in rank order in
// f32, encodes the sum once, and sends that to all. However many ranks there are, a number is encoded twice, and not
// P - 1 times as in a ring.
//
// Cost of P ranks, S bytes encoded (a header of 32 bytes for each 64 Ki elements), chunk c_i of rank i, W = min(16,
// P-1), k segments of the largest chunk: 2 ceil(k(P-1)/W) rounds, S + (P-2) c_r bytes sent by rank r.
// An owner's own contribution is added as it is, unencoded. The owner decodes its own payload, so all end alike.
#include <cstring>

#include "algo/compressed.h"
#include "algo/local.h"
#include "algo/stopwatch.h"
#include "algo/window.h"
#include "pattern/rotation.h"

namespace pycoll::algo {
namespace {

constexpr size_t kSegment = 64 << 10;  // elements encoded at once: 256 KiB stay in the second-level cache
constexpr size_t kWindow = 16;

template <class T>
std::span<T> part(std::span<T> x, Range range) {
  return x.subspan(range.begin, range.count);
}

// One operation: its arrays, its chunks, and the clock that its report is made with.
class TwoShot {
 public:
  TwoShot(Net& net, std::span<const float> in, std::span<float> out, const Compression& how, Scratch& scratch)
      : net_(net), in_(in), out_(out), how_(how), layout_(layout_of(Partition{in.size(), size_t(net.size())})) {
    const size_t peers = size_t(net.size() - 1), largest = largest_of(layout_);
    segments_ = (largest + kSegment - 1) / kSegment;
    most_ = (how.codec.most_bytes(std::min(largest, kSegment)) + 63) / 64 * 64;
    window_ = std::min(kWindow, std::max<size_t>(peers, 1) * segments_);
    // A segment's landing places are used again once the window is past it.
    landings_ = peers == 0 ? 0 : std::min(segments_, 1 + (kWindow - 1 + peers - 1) / peers);
    const size_t floats = std::min(largest, kSegment) * sizeof(float);
    Bytes memory = scratch.get((window_ + landings_ * peers) * most_ + floats);
    const auto take = [&](size_t bytes) {
      const Bytes taken = memory.first(bytes);
      memory = memory.subspan(bytes);
      return taken;
    };
    outgoing_ = take(window_ * most_);
    landed_ = take(landings_ * peers * most_);
    sum_ = reinterpret_cast<float*>(take(floats).data());
  }

  void run() {
    if (segments_ == 0) return;
    if (net_.size() == 1) {
      for (size_t segment = 0; segment < segments_; ++segment) {
        add(segment);
        decode(segment, 0, encode_sum(segment, 0));
      }
      return;
    }
    reduce_scatter();
    allgather();
  }

 private:
  codec::Report& report() { return how_.feedback.report; }
  int rank() const { return net_.rank(); }
  Range range(int owner, size_t segment) const { return segment_of(layout_[size_t(owner)], segment, kSegment); }
  float* residual(Range range) const { return how_.feedback.residual ? how_.feedback.residual + range.begin : nullptr; }
  std::string from(int peer) const { return concat("from rank ", peer); }
  size_t wire_bytes(Range range) const { return range.count ? how_.codec.most_bytes(range.count) : 0; }
  // Who is sent to and received from in exchange i of a segment.
  std::pair<int, int> partners(size_t i) const { return {rotation_.to(1 + int(i)), rotation_.from(1 + int(i))}; }
  // Where a peer's payload of a segment of `owner`'s chunk lands.
  Bytes landing(size_t segment, int peer, int owner) {
    const size_t index = segment % landings_ * size_t(net_.size() - 1) + size_t(rotation_.distance(peer) - 1);
    return landed_.subspan(index * most_, wire_bytes(range(owner, segment)));
  }

  void reduce_scatter() {
    const size_t peers = size_t(net_.size() - 1);
    Window window(net_, window_);
    size_t summed = 0;
    const auto sum = [&](size_t until) {
      report().wire += clock_.lap();
      for (; summed < until; ++summed) add(summed);
      report().decode += clock_.lap();
    };
    for (size_t i = 0; i < segments_ * peers; ++i) {
      sum(window.make_room() / peers);
      const size_t segment = i / peers;
      const auto [to, from] = partners(i % peers);
      window.exchange(to, encode(range(to, segment), i % window_), from, landing(segment, from, rank()));
    }
    window.finish_all();
    sum(segments_);
  }

  // This rank's numbers for a peer.
  ConstBytes encode(Range range, size_t slot) {
    if (range.count == 0) return {};
    clock_.lap();
    const Bytes wire = outgoing_.subspan(slot * most_, most_);
    const size_t bytes =
        how_.codec.encode(part(in_, range), residual(range), {how_.step, uint32_t(rank()), range.begin}, wire);
    report().encode += clock_.lap();
    report().sent += range.count;
    assert(bytes == wire_bytes(range));
    return wire.first(bytes);
  }

  // The sum of a segment of this rank's own chunk goes to `out`, which nobody needs as input any more.
  void add(size_t segment) {
    const Range own = range(rank(), segment);
    if (own.count == 0) return;
    const std::span<float> sum(sum_, own.count);
    std::memset(sum_, 0, sum.size_bytes());
    for (int peer = 0; peer < net_.size(); ++peer) {
      if (peer != rank()) {
        codec::decode_add(sum, landing(segment, peer, rank()), from(peer));
        continue;
      }
      if (float* const mine = residual(own)) {
        kernels::add_into(buffer(std::span(mine, own.count)), buffer(part(in_, own)), ReduceOp::sum);
        kernels::add_into(buffer(sum), buffer(std::span<const float>(mine, own.count)), ReduceOp::sum);
      } else {
        kernels::add_into(buffer(sum), buffer(part(in_, own)), ReduceOp::sum);
      }
    }
    copy_into(buffer(part(out_, own)), buffer(std::span<const float>(sum)));
  }

  // Encodes the sum that is in `out`; what that loses is one rank's to keep, its owner's.
  ConstBytes encode_sum(size_t segment, size_t slot) {
    const Range own = range(rank(), segment);
    if (own.count == 0) return {};
    clock_.lap();
    const std::span<float> sum = part(out_, own);
    complete(buffer(sum), how_.divisor);
    float* const mine = residual(own);
    if (mine) std::memset(mine, 0, own.count * sizeof(float));
    const Bytes wire = outgoing_.subspan(slot * most_, most_);
    // The stream of a sum is one that no rank has.
    const size_t bytes = how_.codec.encode(sum, mine, {how_.step, ~0u, own.begin}, wire);
    if (mine && how_.divisor != 1)
      kernels::scale_into(buffer(std::span(mine, own.count)), buffer(std::span<const float>(mine, own.count)),
                          how_.divisor);
    report().encode += clock_.lap();
    return wire.first(bytes);
  }

  void decode(size_t segment, int owner, ConstBytes wire) {
    const Range chunk = range(owner, segment);
    if (chunk.count == 0) return;
    codec::decode_into(part(out_, chunk), wire, from(owner));
    report().kept += chunk.count;
  }

  // Payloads land where those of the first half did.
  void allgather() {
    const size_t peers = size_t(net_.size() - 1);
    Window window(net_, window_);
    size_t decoded = 0;
    const auto decode_until = [&](size_t segment) {
      report().wire += clock_.lap();
      for (; decoded < segment; ++decoded)
        for (int owner = 0; owner < net_.size(); ++owner)
          if (owner != rank()) decode(decoded, owner, landing(decoded, owner, owner));
      report().decode += clock_.lap();
    };
    ConstBytes mine;
    for (size_t i = 0; i < segments_ * peers; ++i) {
      decode_until(window.make_room() / peers);
      const size_t segment = i / peers;
      if (i % peers == 0) decode(segment, rank(), mine = encode_sum(segment, segment % landings_));
      const auto [to, from] = partners(i % peers);
      window.exchange(to, mine, from, landing(segment, from, from));
    }
    window.finish_all();
    decode_until(segments_);
  }

  Net& net_;
  const pattern::Rotation rotation_{net_.rank(), net_.size()};
  const std::span<const float> in_;
  const std::span<float> out_;
  const Compression& how_;
  const Layout layout_;
  size_t segments_, most_, window_, landings_;
  Bytes outgoing_, landed_;
  float* sum_;
  Stopwatch clock_;
};

}  // namespace

void two_shot_allreduce(Net& net, std::span<const float> in, std::span<float> out, const Compression& how,
                        Scratch& scratch) {
  TwoShot(net, in, out, how, scratch).run();
}

}  // namespace pycoll::algo
