#include "codec/blocks.h"

#include <bit>
#include <cstring>

#include "codec/cast.h"
#include "core/error.h"
#include "kernels/checksum.h"
#include "kernels/quantize.h"

namespace pycoll::codec {
namespace {

using kernels::Grid;

// In the order of ValueFormat.
struct Format {
  const char* name;
  CodecId id;
  Grid grid;  // of those with blocks
};
constexpr Format kFormats[kValueFormats] = {{"f32", CodecId::identity, {}},      {"f16", CodecId::cast, {}},
                                            {"bf16", CodecId::cast, {}},         {"int8", CodecId::int8, Grid::int8},
                                            {"int4", CodecId::int4, Grid::int4}, {"e4m3", CodecId::fp8, Grid::e4m3},
                                            {"e5m2", CodecId::fp8, Grid::e5m2},  {"sign", CodecId::sign, Grid::bit}};

bool has_blocks(ValueFormat format) {
  return format >= ValueFormat::int8;
}
bool is_block(uint32_t block) {
  return std::has_single_bit(block) && block >= kernels::kLeastBlock && block <= kernels::kMostBlock;
}
const Format& info(const WireHeader& header) {
  return kFormats[header.format];
}

class BlockCodec final : public Dense {
 public:
  explicit BlockCodec(const Blocks& blocks) : blocks_(blocks), format_(kFormats[size_t(blocks.format)]) {}

  CodecId id() const override { return format_.id; }
  Blocks parameters() const override { return blocks_; }

  std::string describe() const override {
    const std::string kind = format_.id == CodecId::fp8 ? concat("fp8 ", format_.name) : format_.name;
    const std::string rounding = blocks_.stochastic ? concat(" stochastic seed ", blocks_.seed) : "";
    return concat(kind, " block ", blocks_.block, rounding);
  }

  size_t most_bytes(size_t count) const override {
    return sizeof(WireHeader) + kernels::quantized_bytes(format_.grid, blocks_.block, count);
  }

  size_t encode(std::span<const float> in, float* residual, const Moment& moment, Bytes wire) const override {
    const size_t count = in.size(), bytes = most_bytes(count) - sizeof(WireHeader);
    std::byte* const payload = wire.data() + sizeof(WireHeader);
    kernels::quantize({.grid = format_.grid,
                       .block = blocks_.block,
                       .stochastic = blocks_.stochastic,
                       .seed = blocks_.seed,
                       .step = moment.step,
                       .index = moment.index,
                       .stream = moment.stream},
                      in.data(), residual, count, payload);
    return seal(wire,
                {.codec = uint8_t(format_.id),
                 .format = uint8_t(blocks_.format),
                 .count = count,
                 .bytes = bytes,
                 .parameter = blocks_.block},
                kernels::checksum({payload, bytes}));
  }

 private:
  const Blocks blocks_;
  const Format& format_;
};

}  // namespace

std::unique_ptr<Dense> make(const Blocks& blocks) {
  PYCOLL_CHECK(int(blocks.format) < kValueFormats, "codec: unknown format ", int(blocks.format));
  const char* const name = kFormats[size_t(blocks.format)].name;
  PYCOLL_CHECK(!blocks.stochastic || blocks.format == ValueFormat::int8 || blocks.format == ValueFormat::int4, "codec ",
               name, ": only int8 and int4 round stochastically");
  if (!has_blocks(blocks.format)) return make_cast(blocks.format);
  PYCOLL_CHECK(is_block(blocks.block), "codec ", name, ": block is ", blocks.block, ", wanted a power of two from ",
               kernels::kLeastBlock, " to ", kernels::kMostBlock);
  return std::make_unique<BlockCodec>(blocks);
}

size_t blocks_bytes(const WireHeader& header, const std::string& source) {
  PYCOLL_CHECK_AS(TransportError, CodecId(header.codec) == info(header).id, "payload ", source, ": codec ",
                  int(header.codec), " does not write format ", info(header).name);
  if (!has_blocks(ValueFormat(header.format))) {
    PYCOLL_CHECK_AS(TransportError, header.parameter == 0, "payload ", source, ": ", info(header).name,
                    " has no blocks, got blocks of ", header.parameter);
    return cast_bytes(ValueFormat(header.format), header.count);
  }
  PYCOLL_CHECK_AS(TransportError, is_block(header.parameter), "payload ", source, ": ", info(header).name,
                  " in blocks of ", header.parameter, ", wanted a power of two from ", kernels::kLeastBlock, " to ",
                  kernels::kMostBlock);
  return kernels::quantized_bytes(info(header).grid, header.parameter, header.count);
}

void check_scales(const WireHeader& header, ConstBytes payload, const std::string& source) {
  if (!has_blocks(ValueFormat(header.format))) return;
  const size_t scales = (header.count + header.parameter - 1) / header.parameter;
  for (size_t i = 0; i < scales; ++i) {
    uint32_t bits;
    std::memcpy(&bits, payload.data() + 4 * i, 4);
    PYCOLL_CHECK_AS(TransportError, bits < 0x7f800000 || bits == 0x7fc00000, "payload ", source, ": scale of block ", i,
                    " is ", std::bit_cast<float>(bits), ", wanted a number from 0 on, or NaN");
  }
}

void blocks_into(std::span<float> out, const WireHeader& header, ConstBytes payload) {
  if (!has_blocks(ValueFormat(header.format))) return cast_into(out, ValueFormat(header.format), payload);
  kernels::dequantize_into(info(header).grid, header.parameter, out.data(), payload.data(), out.size());
}

void blocks_add(std::span<float> acc, const WireHeader& header, ConstBytes payload) {
  if (!has_blocks(ValueFormat(header.format))) return cast_add(acc, ValueFormat(header.format), payload);
  kernels::dequantize_add(info(header).grid, header.parameter, acc.data(), payload.data(), acc.size());
}

}  // namespace pycoll::codec
