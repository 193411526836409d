// Compressed allreduce over nodes of several ranks: reduce-scatter inside the node, compressed allreduce of each chunk
// between nodes, allgather inside the node. Inside nodes bytes are cheap, and sums stay exact.
//
// Cost of a node of p ranks, N nodes, L lanes: the rounds and bytes of ring_reduce_scatter and ring_allgather on p, and
// of the codec's allreduce of count / L elements on N.
#include "algo/compressed.h"
#include "algo/local.h"
#include "pattern/hierarchy.h"

namespace pycoll::algo {

void hierarchical_compressed(Levels& levels, std::span<const float> in, std::span<float> out, const Compression& how,
                             Scratch& scratch) {
  const Layout layout = pattern::lane_layout(in.size(), levels.node.size(), levels.lanes);
  const Range own = layout[size_t(levels.node.rank())];
  const std::span<float> chunk = out.subspan(own.count ? own.begin : 0, own.count);
  ring_reduce_scatter(levels.node, buffer(in), buffer(chunk), layout, {ReduceOp::sum}, scratch);
  if (levels.across) {
    // This rank's residual is of its own chunk; the rest of it stays zero.
    codec::Feedback part = how.feedback;
    if (part.residual) part.residual += own.begin;
    part.count = own.count;
    compressed_allreduce(*levels.across, chunk, chunk, {how.codec, part, how.step, how.algo, how.divisor, how.sums},
                         scratch);
    how.feedback.topk = part.topk;
    how.feedback.report = part.report;
  }
  ring_allgather(levels.node, buffer(out), layout);
}

}  // namespace pycoll::algo
