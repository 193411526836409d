#include "algo/compressed.h"

namespace pycoll::algo {
namespace {

constexpr size_t kSmall = 16 << 10, kMiddle = 1 << 20;  // bytes; as select.cc has them

Algo suited(size_t bytes) {
  return bytes <= kSmall ? Algo::doubling : bytes <= kMiddle ? Algo::circulant : Algo::ring;
}

}  // namespace

void dense_allreduce(Net& net, Algo algo, ConstBuffer in, Buffer out, Reduction reduction, Scratch& scratch) {
  switch (algo == Algo::automatic ? suited(in.bytes()) : algo) {
    case Algo::ring: return ring_allreduce(net, in, out, reduction, scratch);
    case Algo::tree: return tree_allreduce(net, in, out, reduction, scratch);
    case Algo::doubling: return doubling_allreduce(net, in, out, reduction, scratch);
    case Algo::halving: return halving_allreduce(net, in, out, reduction, scratch);
    case Algo::pairwise: return pairwise_allreduce(net, in, out, reduction, scratch);
    default: return circulant_allreduce(net, in, out, reduction, scratch);
  }
}

}  // namespace pycoll::algo
