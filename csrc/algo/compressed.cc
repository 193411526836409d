#include "algo/compressed.h"

namespace pycoll::algo {

void compressed_allreduce(Net& net, std::span<const float> in, std::span<float> out, const Compression& how,
                          Scratch& scratch) {
  how.feedback.report = {};
  if (const auto* topk = dynamic_cast<const codec::TopK*>(&how.codec))
    return sparse_allreduce(net, in, out, *topk, how, scratch);
  if (const auto* randomk = dynamic_cast<const codec::RandomK*>(&how.codec))
    return random_allreduce(net, in, out, *randomk, how, scratch);
  if (const auto* shared = dynamic_cast<const codec::SharedScale*>(&how.codec))
    return shared_scale_allreduce(net, in, out, *shared, how, scratch);
  two_shot_allreduce(net, in, out, how, scratch);
}

}  // namespace pycoll::algo
