// Sparse allreduce, in the manner of Ok-Topk (arXiv 2201.07598) and SparCML (SC 2019): every rank selects its k largest
// elements; the array is divided so that every rank owns as many of the selected ones; owners add up in f32 what they
// are sent, in rank order, select k/P of the sums, and send these to all. A chunk that is shorter dense travels dense.
//
// Cost of P ranks that select k entries each: k(P-1)/P entries sent and about as many received for the sums, k(P-1)/P
// sent and received for the result; so below 6k entries sent and received together, whatever P. Before, the division:
// one allreduce of 64 to 4096 counters, and one of 256 (P-1) for each time that it has to be refined; and twice, for
// each pair, 8 bytes that tell a length. What an owner does not select of its sums stays in its residual, so nothing is
// lost.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "algo/compressed.h"
#include "algo/local.h"
#include "algo/parcels.h"
#include "algo/stopwatch.h"
#include "codec/sparse.h"

namespace pycoll::algo {
namespace {

// Finds bounds between which all ranks' entries together are about equally many.
class Balance {
 public:
  // `entries`: about as many as each rank has, the same number on all.
  Balance(Net& net, std::span<const uint32_t> index, size_t entries, size_t count, Scratch& scratch)
      : net_(net), index_(index), entries_(entries), count_(count), scratch_(scratch) {}

  // bounds[p] to bounds[p + 1] is rank p's.
  std::vector<size_t> bounds() {
    const size_t ranks = size_t(net_.size());
    cuts_.assign(ranks - 1, {0, count_, 0});
    // Counters of about a twentieth of the bytes of the entries.
    constexpr size_t kLater = 256;
    const size_t first = std::clamp<size_t>(entries_ / 16, 64, 4096);
    for (size_t bins = first; refine(bins); bins = kLater) {
    }
    std::vector<size_t> bounds = {0};
    for (const Cut& cut : cuts_) bounds.push_back(cut.begin);
    bounds.push_back(count_);
    return bounds;
  }

 private:
  // A bound lies in [begin, end); `below` entries lie before begin.
  struct Cut {
    size_t begin, end;
    uint64_t below;
  };
  static Range bin(const Cut& cut, size_t b, size_t bins) {
    const Range range = Partition{cut.end - cut.begin, bins}[b];
    return {cut.begin + range.begin, range.count};
  }
  uint32_t mine(Range range) const {
    const auto from = std::lower_bound(index_.begin(), index_.end(), range.begin);
    return uint32_t(std::lower_bound(from, index_.end(), range.end()) - from);
  }

  // Divides what each cut leaves open; false when no cut needs another round.
  bool refine(size_t bins) {
    // At first all cuts are the same range.
    const bool first = cuts_.empty() || (cuts_[0].begin == 0 && cuts_[0].end == count_);
    std::vector<uint32_t> counts(first ? bins : bins * cuts_.size());
    for (size_t i = 0; i < counts.size(); ++i)
      counts[i] = mine(bin(first ? Cut{0, count_, 0} : cuts_[i / bins], i % bins, bins));
    const Buffer all{reinterpret_cast<std::byte*>(counts.data()), counts.size(), DType::u32};
    dense_allreduce(net_, Algo::automatic, all, all, {ReduceOp::sum}, scratch_);
    if (first) total_ = std::accumulate(counts.begin(), counts.end(), uint64_t(0));
    bool open = false;
    for (size_t c = 0; c < cuts_.size(); ++c) {
      Cut& cut = cuts_[c];
      const uint64_t wanted = total_ * (c + 1) / size_t(net_.size());
      const uint32_t* const own = counts.data() + (first ? 0 : c * bins);
      size_t b = 0;
      while (b + 1 < bins && cut.below + own[b] <= wanted) cut.below += own[b++];
      const Range range = bin(cut, b, bins);
      cut = {range.begin, range.end(), cut.below};
      // As good as whole: an eighth of a rank's share more or less.
      open |= range.count > 1 && own[b] > total_ / size_t(net_.size()) / 8;
    }
    return open;
  }

  Net& net_;
  const std::span<const uint32_t> index_;
  const size_t entries_, count_;
  Scratch& scratch_;
  std::vector<Cut> cuts_;
  uint64_t total_ = 0;
};

class Sparse {
 public:
  Sparse(Net& net, std::span<const float> in, std::span<float> out, const codec::TopK& codec, const Compression& how,
         Scratch& scratch)
      : net_(net), in_(in), out_(out), codec_(codec), how_(how), scratch_(scratch) {}

  void run() {
    select();
    divide();
    collect();
    reselect();
    spread();
  }

 private:
  codec::Report& report() { return how_.feedback.report; }
  float* residual() { return how_.feedback.residual; }
  int rank() const { return net_.rank(); }
  size_t ranks() const { return size_t(net_.size()); }
  Range owned(int rank) const { return {bounds_[size_t(rank)], bounds_[size_t(rank) + 1] - bounds_[size_t(rank)]}; }
  std::string from(int peer) const { return concat("from rank ", peer); }

  void select() {
    const size_t k = codec_.entries(in_.size());
    index_.resize(k);
    value_.resize(k);
    const auto choose = codec_.exact() ? kernels::select_topk : kernels::select_near;
    const size_t selected =
        choose(in_.data(), residual(), in_.size(), k, how_.feedback.topk, {index_.data(), value_.data()}, scratch_);
    drop_zeros(selected);
    if (poisoned() && residual()) drop_non_finite({residual(), in_.size()});
    report().sent = index_.size();
    report().encode += clock_.lap();
  }

  // Where fewer elements than asked for are not zero, the selection is filled up with zeros.
  void drop_zeros(size_t selected) {
    size_t kept = 0;
    for (size_t i = 0; i < selected; ++i) {
      if (value_[i] == 0) continue;
      index_[kept] = index_[i];
      value_[kept++] = value_[i];
    }
    index_.resize(kept);
    value_.resize(kept);
  }

  // NaN and infinities are selected first, so none is left unseen.
  bool poisoned() const {
    return !std::all_of(value_.begin(), value_.end(), [](float x) { return std::isfinite(x); });
  }

  void divide() {
    bounds_ = Balance(net_, index_, codec_.entries(in_.size()), in_.size(), scratch_).bounds();
    report().wire += clock_.lap();
  }

  // Entries [first, last) are in the range.
  Range entries_in(Range range) const {
    const auto begin = std::lower_bound(index_.begin(), index_.end(), range.begin);
    const auto end = std::lower_bound(begin, index_.end(), range.end());
    return {size_t(begin - index_.begin()), size_t(end - begin)};
  }

  // Header and payload of this rank's entries in `range`; what their format does not carry is kept, times `weight`.
  std::vector<std::byte> encode(Range range, float weight) {
    const Range mine = entries_in(range);
    const uint32_t* const index = index_.data() + mine.begin;
    float* const value = value_.data() + mine.begin;
    std::vector<std::byte> wire(codec::sparse_most_bytes(range.count, mine.count, codec_.format()));
    wire.resize(codec::sparse_encode(index, value, mine.count, uint32_t(range.begin), range.count, codec_.format(),
                                     codec::CodecId::topk, wire));
    codec::WireHeader header;
    std::memcpy(&header, wire.data(), sizeof header);
    report().dense_payloads += codec::CodecId(header.codec) == codec::CodecId::identity && range.count > 0;
    if (residual() && codec_.format() != codec::ValueFormat::f32) {
      codec::sparse_lost(value, mine.count, wire);
      for (size_t i = 0; i < mine.count; ++i) residual()[index[i]] += value[i] * weight;
    }
    return wire;
  }

  // Every rank's entries of this rank's part, added up in sum_.
  void collect() {
    std::vector<std::vector<std::byte>> outgoing(ranks());
    for (int peer = 0; peer < net_.size(); ++peer)
      if (peer != rank()) outgoing[size_t(peer)] = encode(owned(peer), 1);
    report().encode += clock_.lap();
    const auto landed = parcels().exchange([&](int peer) -> ConstBytes { return outgoing[size_t(peer)]; });
    report().wire += clock_.lap();
    const Bytes memory = how_.sums.get(owned(rank()).count * sizeof(float));
    sum_ = {reinterpret_cast<float*>(memory.data()), owned(rank()).count};
    std::fill(sum_.begin(), sum_.end(), 0.0f);
    const Range mine = entries_in(owned(rank()));
    for (size_t peer = 0; peer < ranks(); ++peer) {
      if (int(peer) != rank()) {
        codec::decode_add(sum_, landed[peer], from(int(peer)));
        continue;
      }
      for (size_t i = mine.begin; i < mine.end(); ++i) sum_[index_[i] - bounds_[peer]] += value_[i];
    }
    report().decode += clock_.lap();
  }

  // None is longer than the whole array would be dense.
  Parcels parcels() { return {net_, sizeof(codec::WireHeader) + in_.size() * sizeof(float), "sparse allreduce"}; }

  // This rank's share of the result; the rest of its sums stays here.
  void reselect() {
    const Range own = owned(rank());
    const size_t k = codec_.entries(in_.size());
    const size_t share = k == in_.size() ? own.count : (k + ranks() - 1) / ranks();  // of everything, everything
    index_.resize(std::min(share, own.count));
    value_.resize(index_.size());
    kernels::TopkState cold;
    drop_zeros(kernels::select_topk(sum_.data(), nullptr, own.count, index_.size(), cold,
                                    {index_.data(), value_.data()}, scratch_));
    for (const uint32_t index : index_) sum_[index] = 0;
    if (poisoned()) drop_non_finite(sum_);
    if (residual() && own.count)
      kernels::add_into(buffer(std::span(residual() + own.begin, own.count)), buffer(sum_), ReduceOp::sum);
    for (uint32_t& index : index_) index += uint32_t(own.begin);
    complete(buffer(std::span(value_)), how_.divisor);
    report().encode += clock_.lap();
  }

  void spread() {
    const std::vector<std::byte> mine = encode(owned(rank()), float(how_.divisor));
    report().encode += clock_.lap();
    const auto landed = parcels().exchange([&](int) -> ConstBytes { return mine; });
    report().wire += clock_.lap();
    for (int owner = 0; owner < net_.size(); ++owner) {
      const ConstBytes wire = owner == rank() ? ConstBytes(mine) : ConstBytes(landed[size_t(owner)]);
      const Range range = owned(owner);
      codec::decode_into(out_.subspan(range.begin, range.count), wire, from(owner));
      codec::WireHeader header;
      std::memcpy(&header, wire.data(), sizeof header);
      report().kept += codec::CodecId(header.codec) == codec::CodecId::identity ? range.count : header.parameter;
    }
    report().decode += clock_.lap();
  }

  Net& net_;
  const std::span<const float> in_;
  const std::span<float> out_;
  const codec::TopK& codec_;
  const Compression& how_;
  Scratch& scratch_;
  std::vector<uint32_t> index_;
  std::vector<float> value_;
  std::span<float> sum_;  // of this rank's part
  std::vector<size_t> bounds_;
  Stopwatch clock_;
};

}  // namespace

void sparse_allreduce(Net& net, std::span<const float> in, std::span<float> out, const codec::TopK& codec,
                      const Compression& how, Scratch& scratch) {
  Sparse(net, in, out, codec, how, scratch).run();
}

}  // namespace pycoll::algo
