// An allreduce whose numbers travel encoded: between all ranks, or between nodes only.
#include "algo/compressed.h"

#include "comm/communicator.h"
#include "kernels/reduce.h"

namespace pycoll {

// Between nodes only where some node has several ranks: inside it, memory is faster than a codec. Counts what was sent.
void Communicator::compressed(const Call& call, Deadline deadline) {
  codec::Feedback nothing;
  codec::Feedback& feedback = call.compression.feedback ? *call.compression.feedback : nothing;
  const bool narrow = feedback.stored.data;
  if (narrow) {
    feedback.residual = reinterpret_cast<float*>(residual_.get(feedback.stored.count * sizeof(float)).data());
    kernels::widen_into(feedback.residual, feedback.stored);
  }
  const uint64_t before = world_->wire_bytes();
  const algo::Compression how{*call.compression.codec,
                              feedback,
                              call.compression.step.value_or(compressed_++),
                              call.algo,
                              call.op == ReduceOp::avg ? size() : 1,
                              sums_};
  const std::span<const float> in(reinterpret_cast<const float*>(call.in.data), call.in.count);
  const std::span<float> out(reinterpret_cast<float*>(call.out.data), call.out.count);
  if (call.compression.everywhere || nodes_ == 1 || nodes_ == size()) {
    Net net(*world_, deadline);
    algo::compressed_allreduce(net, in, out, how, scratch_);
  } else {
    const int lanes = algo::lanes_of(options_.node_of);
    Net world(*world_, deadline);
    std::optional<Net> across;
    if (node_->rank() < lanes) across.emplace(world.among(algo::lane_members(options_.node_of, node_->rank())));
    algo::Levels levels{Net(*node_, deadline), across ? &*across : nullptr, lanes};
    algo::hierarchical_compressed(levels, in, out, how, scratch_);
  }
  if (narrow) {
    kernels::narrow_into(feedback.stored, feedback.residual);
    feedback.residual = nullptr;
  }
  feedback.report.wire_bytes = world_->wire_bytes() - before;
}

}  // namespace pycoll
