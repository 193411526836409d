// Compressions whose payload is dense once it is made, so that any algorithm sums it.
//
// SharedScale: an allreduce (max) of one f32 a block, then one (sum) of 1 or 2 bytes an element. Integer sums are
// exact: the same bits under every algorithm, topology and order of arrival.
// RandomK: an allreduce (sum) of k f32, of elements that all ranks choose alike.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "algo/compressed.h"
#include "algo/local.h"
#include "algo/stopwatch.h"
#include "kernels/shared_scale.h"

namespace pycoll::algo {
namespace {

// What this rank means to send, in `sum` or where its residual is: in + residual.
void accumulate(std::span<float> sum, std::span<const float> in, float* residual) {
  if (!residual)
    copy_into(buffer(sum), buffer(in));
  else
    kernels::reduce_into(buffer(sum), buffer(in), buffer(std::span<const float>(residual, in.size())), ReduceOp::sum);
}

template <class Code>
void sum_codes(Net& net, std::span<const float> in, std::span<float> out, const codec::SharedScale& codec,
               const Compression& how, Scratch& scratch, DType dtype) {
  codec::Report& report = how.feedback.report;
  Stopwatch clock;
  float* const residual = how.feedback.residual;
  const size_t blocks = (in.size() + codec.block() - 1) / codec.block();
  const Bytes memory = how.sums.get(blocks * sizeof(float) + in.size() * sizeof(Code));
  const std::span<float> scales(reinterpret_cast<float*>(memory.data()), blocks);
  Code* const codes = reinterpret_cast<Code*>(scales.data() + blocks);
  const Buffer sums{reinterpret_cast<std::byte*>(codes), in.size(), dtype};
  const int largest = codec.largest(net.size());

  // What is lost ends in the residual, or, if nobody keeps it, in `out`, where the result overwrites it.
  const std::span<float> work = residual ? std::span(residual, in.size()) : out;
  accumulate(work, in, residual);
  kernels::absmax_into(scales.data(), work.data(), in.size(), codec.block());
  report.encode += clock.lap();
  dense_allreduce(net, how.algo, buffer(std::span<const float>(scales)), buffer(scales), {ReduceOp::max}, scratch);
  report.wire += clock.lap();
  kernels::divide(buffer(scales), largest);
  kernels::snap(codes, work.data(), in.size(), codec.block(), scales.data(), largest);
  report.encode += clock.lap();
  dense_allreduce(net, how.algo, sums, sums, {ReduceOp::sum}, scratch);
  report.wire += clock.lap();
  kernels::unsnap_into(out.data(), codes, in.size(), codec.block(), scales.data(), how.divisor);
  report.decode += clock.lap();
  report.sent = report.kept = in.size();
}

}  // namespace

void shared_scale_allreduce(Net& net, std::span<const float> in, std::span<float> out, const codec::SharedScale& codec,
                            const Compression& how, Scratch& scratch) {
  PYCOLL_CHECK(codec.largest(net.size()) > 0, "allreduce: ", net.size(), " ranks cannot add up in ", codec.bits(),
               " bits; give SharedScale 16");
  if (in.empty()) return;
  codec.bits() == 8 ? sum_codes<int8_t>(net, in, out, codec, how, scratch, DType::i8)
                    : sum_codes<int16_t>(net, in, out, codec, how, scratch, DType::i16);
}

void random_allreduce(Net& net, std::span<const float> in, std::span<float> out, const codec::RandomK& codec,
                      const Compression& how, Scratch& scratch) {
  if (in.empty()) return;
  codec::Report& report = how.feedback.report;
  Stopwatch clock;
  const size_t k = codec.entries(in.size());
  const Bytes memory = how.sums.get(k * (sizeof(float) + sizeof(uint32_t)));
  const std::span<float> values(reinterpret_cast<float*>(memory.data()), k);
  const std::span<uint32_t> index(reinterpret_cast<uint32_t*>(values.data() + k), k);
  codec::random_indices(codec.seed(), how.step, in.size(), k, index.data());
  float* const residual = how.feedback.residual;
  if (residual) accumulate({residual, in.size()}, in, residual);
  const bool poisoned = std::any_of(in.begin(), in.end(), [](float x) { return !std::isfinite(x); });
  for (size_t i = 0; i < k; ++i) {
    values[i] = residual ? residual[index[i]] : in[index[i]];
    if (residual) residual[index[i]] = 0;
  }
  if (poisoned) {  // every rank is to see it, wherever it is
    std::fill(values.begin(), values.end(), std::numeric_limits<float>::quiet_NaN());
    if (residual) drop_non_finite({residual, in.size()});
  }
  report.encode += clock.lap();
  dense_allreduce(net, how.algo, buffer(std::span<const float>(values)), buffer(values), {ReduceOp::sum, how.divisor},
                  scratch);
  report.wire += clock.lap();
  std::fill(out.begin(), out.end(), 0.0f);
  for (size_t i = 0; i < k; ++i) out[index[i]] = values[i];
  report.decode += clock.lap();
  report.sent = report.kept = k;
}

}  // namespace pycoll::algo
