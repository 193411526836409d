#include "codec/topk.h"

#include "codec/sparse.h"
#include "core/error.h"
#include "core/scratch.h"
#include "kernels/topk.h"

namespace pycoll::codec {
namespace {

// What a thread keeps from one call to the next: fresh memory would cost more than the selection of small arrays.
constexpr size_t kKept = size_t(32) << 20;
thread_local Scratch selecting, selected;

}  // namespace

TopK::TopK(Amount amount, bool exact, ValueFormat format) : amount_(amount), exact_(exact), format_(format) {
  amount.check("TopK");
  PYCOLL_CHECK(is_value_format(format), "TopK: values in format ", name_of(format),
               ", wanted f32, f16, bf16, int8 or int4");
}

std::string TopK::describe() const {
  return concat("topk ", amount_.describe(), exact_ ? " exact " : " ", name_of(format_));
}

size_t TopK::most_bytes(size_t count) const {
  return sparse_most_bytes(count, entries(count), format_);
}

size_t TopK::encode(std::span<const float> in, float* residual, const Moment&, Bytes wire) const {
  const size_t k = entries(in.size());
  auto* const index = reinterpret_cast<uint32_t*>(selected.get(2 * k * sizeof(float)).data());
  auto* const value = reinterpret_cast<float*>(index + k);
  const auto select = exact_ ? kernels::select_topk : kernels::select_near;
  kernels::TopkState state;
  const size_t found = select(in.data(), residual, in.size(), k, state, {index, value}, selecting);
  const size_t bytes = sparse_encode(index, value, found, 0, in.size(), format_, id(), wire);
  if (residual && format_ != ValueFormat::f32) {
    sparse_lost(value, found, wire);
    for (size_t i = 0; i < found; ++i) residual[index[i]] = value[i];
  }
  selecting.trim(kKept);
  selected.trim(kKept);
  return bytes;
}

}  // namespace pycoll::codec
