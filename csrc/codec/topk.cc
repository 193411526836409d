#include "codec/topk.h"

#include <vector>

#include "codec/sparse.h"
#include "kernels/topk.h"

namespace pycoll::codec {
namespace {

constexpr std::string_view name_of(ValueFormat format) {
  constexpr std::string_view names[kValueFormats] = {"f32", "f16", "bf16", "int8", "int4", "e4m3", "e5m2", "bit"};
  return names[size_t(format)];
}

}  // namespace

TopK::TopK(Amount amount, bool exact, ValueFormat format) : amount_(amount), exact_(exact), format_(format) {
  amount.validate("TopK");
  PYCOLL_CHECK(is_sparse_format(format), "TopK: values in ", name_of(format), ", wanted f32, f16, bf16, int8 or int4");
}

std::string TopK::describe() const {
  return concat("topk ", amount_.describe(), exact_ ? " exact" : "", " values ", name_of(format_));
}

size_t TopK::most_bytes(size_t count) const {
  return sparse_most_bytes(count, entries(count), format_);
}

size_t TopK::encode(std::span<const float> in, float* residual, const Moment&, Bytes wire) const {
  std::vector<uint32_t> index(entries(in.size()));
  std::vector<float> value(index.size());
  kernels::TopkState cold;
  Scratch scratch;
  const auto select = exact_ ? kernels::select_topk : kernels::select_near;
  const size_t selected =
      select(in.data(), residual, in.size(), index.size(), cold, {index.data(), value.data()}, scratch);
  const size_t bytes = sparse_encode(index.data(), value.data(), selected, 0, in.size(), format_, id(), wire);
  if (residual && format_ != ValueFormat::f32) {
    sparse_lost(value.data(), selected, wire.first(bytes));
    for (size_t i = 0; i < selected; ++i) residual[index[i]] += value[i];
  }
  return bytes;
}

}  // namespace pycoll::codec
