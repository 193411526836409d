#include "codec/randomk.h"

#include <cstring>
#include <utility>
#include <vector>

#include "core/partition.h"
#include "kernels/checksum.h"
#include "kernels/element.h"
#include "kernels/philox.h"

namespace pycoll::codec {
namespace {

void choose_of(uint64_t seed, uint64_t step, size_t count, std::span<uint32_t> index) {
  const Partition strata{count, index.size()};
  for (size_t i = 0; i < index.size(); ++i) {
    const Range stratum = strata[i];
    const uint64_t random = kernels::philox_word(seed, step, 0, i);
    index[i] = uint32_t(stratum.begin + (random * stratum.count >> 32));
  }
}

struct Head {
  uint64_t seed, step;
};

// A payload whose parts fit together.
class Checked {
 public:
  Checked(const WireHeader& header, ConstBytes payload, const std::string& source) : values_(payload.data()) {
    const size_t wanted = sizeof(Head) + size_t(header.parameter) * sizeof(float);
    PYCOLL_CHECK_AS(TransportError, header.format == uint8_t(ValueFormat::f32) && payload.size() == wanted,
                    "randomk payload ", source, ": ", payload.size(), " bytes of format ", int(header.format),
                    ", wanted ", wanted, " of f32 for ", header.parameter, " values");
    PYCOLL_CHECK_AS(TransportError, header.parameter <= header.count && header.count >> 32 == 0, "randomk payload ",
                    source, ": ", header.parameter, " values of ", header.count, " elements");
    Head head;
    std::memcpy(&head, payload.data(), sizeof head);
    values_ += sizeof head;
    index_.resize(header.parameter);
    choose_of(head.seed, head.step, header.count, index_);
  }
  template <class Body>
  void for_each(Body body) const {
    for (size_t i = 0; i < index_.size(); ++i) {
      float value;
      std::memcpy(&value, values_ + i * sizeof value, sizeof value);
      body(index_[i], value);
    }
  }

 private:
  const std::byte* values_;
  std::vector<uint32_t> index_;
};

}  // namespace

RandomK::RandomK(Amount amount, uint64_t seed) : amount_(amount), seed_(seed) {
  amount.validate("RandomK");
}

std::string RandomK::describe() const {
  return concat("randomk ", amount_.describe(), " seed ", seed_);
}

size_t RandomK::most_bytes(size_t count) const {
  return sizeof(WireHeader) + sizeof(Head) + entries(count) * sizeof(float);
}

void RandomK::choose(uint64_t step, size_t count, std::span<uint32_t> index) const {
  choose_of(seed_, step, count, index);
}

size_t RandomK::encode(std::span<const float> in, float* residual, const Moment& moment, Bytes wire) const {
  std::vector<uint32_t> index(entries(in.size()));
  choose(moment.step, in.size(), index);
  const Head head{seed_, moment.step};
  const size_t bytes = sizeof head + index.size() * sizeof(float);
  std::byte* const payload = wire.data() + sizeof(WireHeader);
  std::memcpy(payload, &head, sizeof head);
  if (residual)
    for (size_t i = 0; i < in.size(); ++i) residual[i] = kernels::canonical(residual[i] + in[i]);
  for (size_t i = 0; i < index.size(); ++i) {
    const float value = residual ? std::exchange(residual[index[i]], 0.0f) : in[index[i]];
    std::memcpy(payload + sizeof head + i * sizeof value, &value, sizeof value);
  }
  WireHeader header;
  header.codec = uint8_t(id());
  header.format = uint8_t(ValueFormat::f32);
  header.count = in.size();
  header.bytes = bytes;
  header.parameter = uint32_t(index.size());
  return seal(wire, header, kernels::checksum(wire.subspan(sizeof(WireHeader), bytes)));
}

void randomk_into(std::span<float> out, const WireHeader& header, ConstBytes payload, const std::string& source) {
  const Checked checked(header, payload, source);
  std::fill(out.begin(), out.end(), 0.0f);
  checked.for_each([&](size_t i, float value) { out[i] = value; });
}

void randomk_add(std::span<float> acc, const WireHeader& header, ConstBytes payload, const std::string& source) {
  Checked(header, payload, source).for_each([&](size_t i, float value) {
    acc[i] = kernels::canonical(acc[i] + value);
  });
}

}  // namespace pycoll::codec
