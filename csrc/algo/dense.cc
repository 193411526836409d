#include "algo/collectives.h"
#include "algo/select.h"

namespace pycoll::algo {
void dense_allreduce(Net& net, Algo algo, ConstBuffer in, Buffer out, Reduction reduction, Scratch& scratch) {
  switch (algo == Algo::automatic ? suited(in.bytes(), net.size()) : algo) {
    case Algo::ring: return ring_allreduce(net, in, out, reduction, scratch);
    case Algo::tree: return tree_allreduce(net, in, out, reduction, scratch);
    case Algo::doubling: return doubling_allreduce(net, in, out, reduction, scratch);
    case Algo::halving: return halving_allreduce(net, in, out, reduction, scratch);
    case Algo::pairwise: return pairwise_allreduce(net, in, out, reduction, scratch);
    default: return circulant_allreduce(net, in, out, reduction, scratch);
  }
}

}  // namespace pycoll::algo
