// Recursive halving, then doubling: few rounds and few bytes. Rabenseifner 2004, "Optimization of collective reduction
// operations".
//
// Cost of P ranks, S bytes, Q = 2^floor(log2 P) of them in the hypercube; window w_d of a corner is its d-th halving of
// S (the first half is the larger one; the lower corner keeps it):
//   2 log2 Q rounds, and 2 more if P is no power of two
//   S - w_q + w_q + ... + w_1 bytes sent a rank, q = log2 Q: 2S(Q-1)/Q where Q divides the count;
//   of the 2(P-Q) ranks that fold, odd ones send S, even ones S more than the rest
// Sums run in rank order, as a balanced tree.
#include "algo/collectives.h"
#include "algo/local.h"
#include "pattern/hypercube.h"

namespace pycoll::algo {
namespace {

// Half of a window: 0 the lower corner's, 1 the upper one's.
Range half_of(Range window, int half) {
  const Range part = Partition{window.count, 2}[size_t(half)];
  return {window.begin + part.begin, part.count};
}

}  // namespace

void halving_allreduce(Net& net, ConstBuffer in, Buffer out, Reduction reduction, Scratch& scratch) {
  const pattern::Hypercube cube{net.rank(), net.size()};
  if (cube.is_extra()) {
    net.send(cube.fold_partner(), in.span());
    net.recv(cube.fold_partner(), out.span());
    return;
  }
  const Buffer spare = borrow(scratch, cube.folds() ? in.count : (in.count + 1) / 2, in.dtype);
  ConstBuffer sum = in;
  if (cube.folds()) {
    net.recv(cube.fold_partner(), spare.span());
    kernels::reduce_into(out, in, spare, reduction.op);
    sum = out;
  }

  // Before dimension d, windows[d] of `sum` is over the ranks of the 2^d corners that differ in lower dimensions only.
  std::vector<Range> windows{{0, in.count}};
  for (int d = 0; d < cube.dimensions(); ++d) {
    const Range kept = half_of(windows.back(), cube.is_upper(d)), given = half_of(windows.back(), !cube.is_upper(d));
    const Buffer landed = spare[{0, kept.count}];
    net.exchange(cube.neighbour(d), sum[given].span(), cube.neighbour(d), landed.span());
    if (cube.is_upper(d))
      kernels::reduce_into(out[kept], landed, sum[kept], reduction.op);
    else
      kernels::reduce_into(out[kept], sum[kept], landed, reduction.op);
    sum = out;
    windows.push_back(kept);
  }
  copy_into(out[windows.back()], sum[windows.back()]);  // of one rank
  complete(out[windows.back()], reduction.divisor);

  // After dimension d, windows[d] is complete.
  for (int d = cube.dimensions() - 1; d >= 0; --d) {
    const Range missing = half_of(windows[size_t(d)], !cube.is_upper(d));
    net.exchange(cube.neighbour(d), out[windows[size_t(d) + 1]].span(), cube.neighbour(d), out[missing].span());
  }
  if (cube.folds()) net.send(cube.fold_partner(), out.span());
}

}  // namespace pycoll::algo
