// Allreduce of float32 whose chunks travel encoded. Sums or averages; ranks end with the same bits.
//
// Every rank calls with an equal codec and step. With feedback, what a rank lost when it encoded its own numbers, and
// what the owner of a chunk lost when it encoded the sum, is kept in the residuals of the rank that lost it, in units
// of a contribution: over all ranks, result * divisor + residuals = old residuals + inputs, but for rounding.
#pragma once
#include <cmath>
#include <span>

#include "algo/collectives.h"
#include "codec/codec.h"
#include "codec/feedback.h"
#include "codec/randomk.h"
#include "codec/shared_scale.h"
#include "codec/topk.h"
#include "core/signature.h"

namespace pycoll::algo {

struct Compression {
  const codec::Codec& codec;
  codec::Feedback& feedback;
  uint64_t step;  // of random numbers
  Algo algo;      // of what is dense inside: shared scales, RandomK's values; automatic: by size
  int divisor;    // 1, or the number of ranks for an average
  Scratch& sums;  // besides the one that the steps inside use
};

// `in` may be `out`. Goes by what the codec is.
void compressed_allreduce(Net& net, std::span<const float> in, std::span<float> out, const Compression& how,
                          Scratch& scratch);

// two_shot.cc: codecs whose bytes follow from the count.
void two_shot_allreduce(Net& net, std::span<const float> in, std::span<float> out, const Compression& how,
                        Scratch& scratch);
// sparse.cc
void sparse_allreduce(Net& net, std::span<const float> in, std::span<float> out, const codec::TopK& codec,
                      const Compression& how, Scratch& scratch);
// order_free.cc: what is dense once it is encoded, and summed by any algorithm.
void shared_scale_allreduce(Net& net, std::span<const float> in, std::span<float> out, const codec::SharedScale& codec,
                            const Compression& how, Scratch& scratch);
void random_allreduce(Net& net, std::span<const float> in, std::span<float> out, const codec::RandomK& codec,
                      const Compression& how, Scratch& scratch);

// What is not a number, or infinite, is not to be sent again and again: it becomes 0.
inline void drop_non_finite(std::span<float> x) {
  for (float& number : x)
    if (!std::isfinite(number)) number = 0;
}

// hierarchical_compressed.cc: dense inside nodes, each lane's chunk encoded between them.
void hierarchical_compressed(Levels& levels, std::span<const float> in, std::span<float> out, const Compression& how,
                             Scratch& scratch);

// Arrays of f32 as what the other algorithms take.
inline Buffer buffer(std::span<float> x) {
  return {reinterpret_cast<std::byte*>(x.data()), x.size(), DType::f32};
}
inline ConstBuffer buffer(std::span<const float> x) {
  return {reinterpret_cast<const std::byte*>(x.data()), x.size(), DType::f32};
}

}  // namespace pycoll::algo
