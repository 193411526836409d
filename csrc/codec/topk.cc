#include "codec/topk.h"

#include "codec/ratio.h"
#include "codec/sparse.h"
#include "core/error.h"
#include "core/scratch.h"
#include "kernels/topk.h"

namespace pycoll::codec {
namespace {

// What a thread keeps from one call to the next: fresh memory would cost more than the selection of small arrays.
constexpr size_t kKept = size_t(32) << 20;
thread_local Scratch selecting, selected;

class TopKCodec final : public Codec {
 public:
  explicit TopKCodec(const TopK& topk) : topk_(topk), kept_{topk.ratio, topk.k} {}

  CodecId id() const override { return CodecId::topk; }
  std::string describe() const override {
    return concat("topk ", kept_.describe(), topk_.exact ? " exact " : " ", name_of(topk_.format));
  }
  size_t most_bytes(size_t count) const override { return sparse_most_bytes(count, kept_.of(count), topk_.format); }

  size_t encode(std::span<const float> in, float* residual, const Moment&, Bytes wire) const override {
    const size_t k = kept_.of(in.size());
    auto* const index = reinterpret_cast<uint32_t*>(selected.get(2 * k * sizeof(float)).data());
    auto* const value = reinterpret_cast<float*>(index + k);
    const auto select = topk_.exact ? kernels::select_topk : kernels::select_near;
    kernels::TopkState state;
    const size_t entries = select(in.data(), residual, in.size(), k, state, {index, value}, selecting);
    const size_t bytes = sparse_encode(index, value, entries, 0, in.size(), topk_.format, id(), wire);
    if (residual && topk_.format != ValueFormat::f32) {
      sparse_lost(value, entries, wire);
      for (size_t i = 0; i < entries; ++i) residual[index[i]] = value[i];
    }
    selecting.trim(kKept);
    selected.trim(kKept);
    return bytes;
  }

 private:
  const TopK topk_;
  const Kept kept_;
};

}  // namespace

std::unique_ptr<Codec> make(const TopK& topk) {
  PYCOLL_CHECK(is_value_format(topk.format), "topk: values in format ", name_of(topk.format),
               ", wanted f32, f16, bf16, int8 or int4");
  Kept{topk.ratio, topk.k}.check("topk");
  return std::make_unique<TopKCodec>(topk);
}

}  // namespace pycoll::codec
