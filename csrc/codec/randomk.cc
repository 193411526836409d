#include "codec/randomk.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <memory>

#include "codec/values.h"
#include "core/buffer.h"
#include "core/error.h"
#include "kernels/checksum.h"
#include "kernels/element.h"
#include "kernels/reduce.h"
#include "kernels/strata.h"

namespace pycoll::codec {
namespace {

struct Draw {
  uint64_t seed, step;
};
static_assert(sizeof(Draw) == kernels::Strata::kHeadBytes);

// Calls body(j, index) for each of k strata, ascending.
template <class Body>
void for_each_index(Draw draw, size_t count, size_t k, Body body) {
  const kernels::Strata strata{draw.seed, draw.step, count, k};
  kernels::PhiloxBlock words;
  size_t begin = 0;
  for (size_t j = 0; j < k; ++j) {
    if (j % 4 == 0) words = strata.words(j / 4);
    const size_t end = strata.begin(j + 1);
    body(j, strata.choice(begin, end, words.word[j % 4]));
    begin = end;
  }
}

// in + residual to the residual.
void accumulate(float* residual, std::span<const float> in) {
  kernels::add_into({reinterpret_cast<std::byte*>(residual), in.size(), DType::f32},
                    {reinterpret_cast<const std::byte*>(in.data()), in.size(), DType::f32}, ReduceOp::sum);
}

// The values that a payload carries.
std::unique_ptr<float[]> checked_values(size_t count, const WireHeader& header, ConstBytes payload,
                                        const std::string& source) {
  const auto want = [&](bool holds, const auto&... what) {
    PYCOLL_CHECK_AS(TransportError, holds, "random payload ", source, ": ", what...);
  };
  const auto format = ValueFormat(header.format);
  const size_t k = header.parameter;
  want(CodecId(header.codec) == CodecId::randomk, "codec ", int(header.codec), " is another one");
  want(count == header.count, "holds ", header.count, " elements, wanted ", count);
  want(is_value_format(format), "values in format ", name_of(format));
  want(k <= count && count < (uint64_t(1) << 32), k, " entries of ", count, " elements");
  want(header.bytes == payload.size() && payload.size() == random_bytes(format, k), payload.size(),
       " bytes, header says ", header.bytes, ", wanted ", random_bytes(format, k), " for ", k, " entries");
  std::unique_ptr<float[]> values(new float[k]);
  read_values(values.get(), format, payload.data() + sizeof(Draw), k);
  return values;
}

Draw draw_of(ConstBytes payload) {
  Draw draw;
  std::memcpy(&draw, payload.data(), sizeof(draw));
  return draw;
}

}  // namespace

size_t random_bytes(ValueFormat format, size_t k) {
  return sizeof(Draw) + values_bytes(format, k);
}

RandomK::RandomK(Amount amount, uint64_t seed, ValueFormat format) : amount_(amount), seed_(seed), format_(format) {
  amount.check("RandomK");
  PYCOLL_CHECK(is_value_format(format), "RandomK: values in format ", name_of(format),
               ", wanted f32, f16, bf16, int8 or int4");
}

std::string RandomK::describe() const {
  return concat("randomk ", amount_.describe(), " ", name_of(format_), " seed ", seed_);
}

size_t RandomK::most_bytes(size_t count) const {
  return sizeof(WireHeader) + std::min(sizeof(float) * count, random_bytes(format_, entries(count)));
}

size_t RandomK::encode(std::span<const float> in, float* residual, const Moment& moment, Bytes wire) const {
  const size_t k = entries(in.size()), bytes = most_bytes(in.size()) - sizeof(WireHeader);
  const Draw draw{seed_, moment.step};
  const bool dense = bytes < random_bytes(format_, k);
  std::byte* const payload = wire.data() + sizeof(WireHeader);
  const std::unique_ptr<uint32_t[]> index(new uint32_t[k]);
  const std::unique_ptr<float[]> value(new float[k]);
  random_indices(draw.seed, draw.step, in.size(), k, index.get());
  if (residual) accumulate(residual, in);
  const float* const from = residual ? residual : in.data();
  for (size_t j = 0; j < k; ++j) value[j] = from[index[j]];
  if (dense) {
    std::memset(payload, 0, bytes);
    for (size_t j = 0; j < k; ++j) std::memcpy(payload + sizeof(float) * index[j], &value[j], sizeof(float));
    std::fill_n(value.get(), k, 0.0f);
  } else {
    std::memcpy(payload, &draw, sizeof(draw));
    write_values(payload + sizeof(draw), format_, value.get(), k);
    if (residual) subtract_values(value.get(), format_, payload + sizeof(draw), k);
  }
  for (size_t j = 0; residual && j < k; ++j) residual[index[j]] = value[j];
  return seal(wire,
              {.codec = uint8_t(dense ? CodecId::identity : id()),
               .format = uint8_t(dense ? ValueFormat::f32 : format_),
               .count = in.size(),
               .bytes = bytes,
               .parameter = dense ? 0 : uint32_t(k)},
              kernels::checksum({payload, bytes}));
}

void random_indices(uint64_t seed, uint64_t step, size_t count, size_t k, uint32_t* index) {
  assert(k <= count && count < (uint64_t(1) << 32));
  for_each_index({seed, step}, count, k, [=](size_t j, size_t i) { index[j] = uint32_t(i); });
}

void random_into(std::span<float> out, const WireHeader& header, ConstBytes payload, const std::string& source) {
  const auto values = checked_values(out.size(), header, payload, source);
  std::fill(out.begin(), out.end(), 0.0f);
  for_each_index(draw_of(payload), out.size(), header.parameter, [&](size_t j, size_t i) { out[i] = values[j]; });
}

void random_add(std::span<float> acc, const WireHeader& header, ConstBytes payload, const std::string& source) {
  const auto values = checked_values(acc.size(), header, payload, source);
  for_each_index(draw_of(payload), acc.size(), header.parameter,
                 [&](size_t j, size_t i) { acc[i] = kernels::canonical(acc[i] + values[j]); });
}

}  // namespace pycoll::codec
