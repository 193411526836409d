// Reduce-scatter and allgather on a circulant graph: as few rounds as any algorithm, as few bytes as any, any number of
// ranks. Träff 2024, "Optimal, non-pipelined reduce-scatter and allreduce algorithms", arXiv:2410.14234.
//
// Cost of P ranks, S bytes, chunk c_i of rank i, q = ceil(log2 P), b_k = ceil(P/2^k) - ceil(P/2^(k+1)):
//   reduce_scatter  q rounds   S - c_r bytes sent by rank r
//   allgather       q rounds   the sum over k < q of c_r + c_(r+1) + ... + c_(r + b_k - 1)
//   allreduce      2q rounds   both; 2S(P-1)/P where P divides the count
// Sums run in the order of the graph, not of ranks: at each step a rank adds what came to what it has.
#include "pattern/circulant.h"
#include "algo/collectives.h"
#include "algo/local.h"

namespace pycoll::algo {

// Block i of a rank is chunk (rank + i) mod P.

void circulant_reduce_scatter(Net& net, ConstBuffer in, Buffer out, const Layout& layout, Reduction reduction,
                              Scratch& scratch) {
  const pattern::Circulant graph{net.rank(), net.size()};
  if (graph.size == 1) return alone(in, out, reduction);
  const auto blocks = [&](int first, int count) { return arc_of(layout, (graph.rank + first) % graph.size, count); };
  const auto elements = [&](int count) { return count_of(blocks(0, count)); };  // of blocks [0, count)

  // sums holds blocks [0, skip(1)), all that is left after step 0; spare what step 0 packs, then what later steps
  // receive.
  const auto away = blocks(graph.skip(1), graph.blocks(0));
  const size_t held = elements(graph.skip(1)), landed = elements(graph.blocks(0));
  const Buffer memory = borrow(scratch, held + std::max(count_of(away), landed), in.dtype);
  const Buffer sums = memory[{0, held}], spare = memory[{held, memory.count - held}];

  // Step 0 sends from `in`; the last block kept gets no partner if P is odd.
  net.exchange(graph.above(0), packed(in, away, spare).span(), graph.below(0), sums[{0, landed}].span());
  size_t at = 0;
  for (const Range part : blocks(0, graph.blocks(0))) {
    kernels::add_into(sums[{at, part.count}], in[part], reduction.op);
    at += part.count;
  }
  for (const Range part : blocks(graph.blocks(0), graph.skip(1) - graph.blocks(0))) {
    copy_into(sums[{at, part.count}], in[part]);
    at += part.count;
  }

  // Before step k, a rank holds blocks [0, skip(k)), and the skip(k) ranks that hold a chunk have it all between them:
  // their sums of it add up to the sum over all ranks.
  for (int step = 1; step < graph.steps(); ++step) {
    const size_t kept = elements(graph.skip(step + 1)), sent = elements(graph.skip(step)) - kept;
    const Buffer received = spare[{0, elements(graph.blocks(step))}];
    net.exchange(graph.above(step), sums[{kept, sent}].span(), graph.below(step), received.span());
    kernels::add_into(sums[{0, received.count}], received, reduction.op);
  }
  copy_into(out, sums[{0, out.count}]);
  complete(out, reduction.divisor);
}

void circulant_allgather(Net& net, Buffer x, const Layout& layout, Scratch& scratch) {
  const pattern::Circulant graph{net.rank(), net.size()};
  const auto blocks = [&](int first, int count) { return arc_of(layout, (graph.rank + first) % graph.size, count); };

  // The reduce-scatter backwards. Before step k (from the last down to 0), this rank holds blocks [0, skip(k + 1)).
  for (int step = graph.steps() - 1; step >= 0; --step) {
    const auto sent = blocks(0, graph.blocks(step)), received = blocks(graph.skip(step + 1), graph.blocks(step));
    // The two do not overlap, so at most one of them goes around the end and needs the spare memory.
    const Buffer spare = borrow(scratch, std::max(count_of(sent), count_of(received)), x.dtype);
    const Buffer landed = landing(x, received, spare);
    net.exchange(graph.below(step), packed(x, sent, spare).span(), graph.above(step), landed.span());
    unpack(x, received, landed);
  }
}

void circulant_allreduce(Net& net, ConstBuffer in, Buffer out, Reduction reduction, Scratch& scratch) {
  const Layout layout = layout_of(Partition{in.count, size_t(net.size())});
  circulant_reduce_scatter(net, in, out[layout[size_t(net.rank())]], layout, reduction, scratch);
  circulant_allgather(net, out, layout, scratch);
}

}  // namespace pycoll::algo
