// Recursive doubling: the fewest rounds, for short arrays. Thakur, Rabenseifner and Gropp 2005, "Optimization of
// collective communication operations in MPICH".
//
// Cost of P ranks, S bytes, Q = 2^floor(log2 P) of them in the hypercube:
//   log2 Q rounds, and 2 more if P is no power of two
//   S log2 Q bytes sent a rank; of the 2(P-Q) ranks that fold, odd ones send S, even ones S more than the rest
// Sums run in rank order, as a balanced tree; both partners add the lower ranks' sum first, so that even the payload of
// a NaN is the same everywhere.
#include "algo/collectives.h"
#include "algo/local.h"
#include "pattern/hypercube.h"

namespace pycoll::algo {

void doubling_allreduce(Net& net, ConstBuffer in, Buffer out, Reduction reduction, Scratch& scratch) {
  const pattern::Hypercube cube{net.rank(), net.size()};
  if (cube.is_extra()) {
    net.send(cube.fold_partner(), in.span());
    net.recv(cube.fold_partner(), out.span());
    return;
  }
  const Buffer landed = borrow(scratch, in.count, in.dtype);
  ConstBuffer sum = in;
  if (cube.folds()) {
    net.recv(cube.fold_partner(), landed.span());
    kernels::reduce_into(out, in, landed, reduction.op);
    sum = out;
  }

  // Before dimension d, `sum` is over the ranks of the 2^d corners that differ from this one in lower dimensions only.
  for (int d = 0; d < cube.dimensions(); ++d) {
    net.exchange(cube.neighbour(d), sum.span(), cube.neighbour(d), landed.span());
    if (cube.is_upper(d))
      kernels::reduce_into(out, landed, sum, reduction.op);
    else
      kernels::reduce_into(out, sum, landed, reduction.op);
    sum = out;
  }
  copy_into(out, sum);  // of one rank
  complete(out, reduction.divisor);
  if (cube.folds()) net.send(cube.fold_partner(), out.span());
}

}  // namespace pycoll::algo
