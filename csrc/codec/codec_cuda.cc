#include "codec/codec_cuda.h"

#include <bit>
#include <vector>

#include "codec/blocks.h"
#include "codec/randomk.h"
#include "codec/sparse.h"
#include "codec/topk.h"
#include "core/error.h"
#include "kernels/quantize.h"
#include "kernels/wire_cuda.h"

namespace pycoll::codec::cuda {
namespace {

namespace device = kernels::cuda;
using device::Store;
using kernels::Grid;

// In the order of ValueFormat, from int8 on.
constexpr Grid kGrids[] = {Grid::int8, Grid::int4, Grid::e4m3, Grid::e5m2, Grid::bit};

bool has_blocks(ValueFormat format) {
  return format >= ValueFormat::int8;
}
Grid grid_of(ValueFormat format) {
  return kGrids[int(format) - int(ValueFormat::int8)];
}

kernels::Header words_of(const WireHeader& header) {
  static_assert(sizeof(WireHeader) == sizeof(kernels::Header));
  return std::bit_cast<kernels::Header>(header);
}

kernels::Quantizer quantizer_of(const Blocks& blocks) {
  return {.grid = grid_of(blocks.format), .block = blocks.block, .stochastic = blocks.stochastic, .seed = blocks.seed};
}

size_t seal(const Dense& codec, size_t count, Bytes wire, Stream stream) {
  const Blocks blocks = codec.parameters();
  const WireHeader header{.codec = uint8_t(codec.id()),
                          .format = uint8_t(blocks.format),
                          .count = count,
                          .bytes = codec.most_bytes(count) - sizeof(WireHeader),
                          .parameter = has_blocks(blocks.format) ? blocks.block : 0};
  device::seal(wire.data(), words_of(header), stream);
  return sizeof(header) + header.bytes;
}

size_t encode_dense(const Dense& codec, std::span<const float> in, float* residual, const Moment& moment, Bytes wire,
                    Stream stream) {
  const Blocks blocks = codec.parameters();
  std::byte* const payload = wire.data() + sizeof(WireHeader);
  if (has_blocks(blocks.format)) {
    kernels::Quantizer how = quantizer_of(blocks);
    how.step = moment.step, how.index = moment.index, how.stream = moment.stream;
    device::quantize(how, in.data(), residual, in.size(), payload, stream);
  } else {
    device::narrow({blocks.format, payload, in.size()}, in.data(), residual, stream);
  }
  return seal(codec, in.size(), wire, stream);
}

struct Sparse {
  CodecId id;
  ValueFormat format;
  size_t entries;
};

device::SparseWire sparse_wire(const Sparse& what, std::span<const float> in, float* residual, Bytes wire) {
  return {.in = in.data(),
          .residual = residual,
          .count = in.size(),
          .entries = what.entries,
          .format = what.format,
          .sparse = words_of({.codec = uint8_t(what.id), .format = uint8_t(what.format), .count = in.size()}),
          .dense = words_of({.codec = uint8_t(CodecId::identity), .count = in.size()}),
          .wire = wire.data()};
}

// --- Decoding.

const std::string kSource = "given to decode";

// The sentence is the CPU's, who looks at a copy of the wire.
[[noreturn]] void refuse(ConstBytes wire, size_t count, Stream stream) {
  std::vector<std::byte> copy(wire.size());
  device::read(copy.data(), wire.data(), copy.size(), stream);
  codec::check(copy, count, kSource);
  std::vector<float> nowhere(count);
  codec::decode_into(nowhere, copy, kSource);
  throw DeviceError("cuda: the device finds fault with a payload in which the CPU finds none");
}

bool is_sparse(const WireHeader& header) {
  return CodecId(header.codec) == CodecId::topk || CodecId(header.codec) == CodecId::randomk;
}

size_t scales_of(const WireHeader& header) {
  return has_blocks(ValueFormat(header.format)) ? (header.count + header.parameter - 1) / header.parameter : 0;
}

device::SparseFrom sparse_of(const WireHeader& header, ConstBytes payload) {
  return {payload.data(), header.count, header.parameter, ValueFormat(header.format)};
}

// What is left to say of a sparse payload's length after check_header.
bool has_its_length(const WireHeader& header) {
  const auto format = ValueFormat(header.format);
  if (!is_value_format(format) || header.parameter > header.count) return false;
  return header.bytes == (CodecId(header.codec) == CodecId::topk
                              ? kernels::SparseLayout(header.count, header.parameter, format).bytes
                              : random_bytes(format, header.parameter));
}

// As codec::check.
WireHeader checked(ConstBytes wire, size_t count, Stream stream) {
  const WireHeader header = header_of(wire, stream);
  check_header(header, wire.size(), count, kSource);
  if (is_sparse(header) && !has_its_length(header)) refuse(wire, count, stream);
  const ConstBytes payload = payload_of(header, wire);
  const device::Findings found =
      CodecId(header.codec) == CodecId::topk
          ? device::check_topk(sparse_of(header, payload), stream)
          : device::check(payload.data(), payload.size(), is_sparse(header) ? 0 : scales_of(header), stream);
  if (found.faults || check_of(header, found.checksum) != header.check) refuse(wire, count, stream);
  return header;
}

void decode(Store store, std::span<float> out, ConstBytes wire, Stream stream) {
  const WireHeader header = checked(wire, out.size(), stream);
  const ConstBytes payload = payload_of(header, wire);
  const auto format = ValueFormat(header.format);
  switch (CodecId(header.codec)) {
    case CodecId::topk: return device::decode_topk(store, out.data(), sparse_of(header, payload), stream);
    case CodecId::randomk: return device::decode_random(store, out.data(), sparse_of(header, payload), stream);
    default: break;
  }
  if (has_blocks(format)) {
    device::dequantize(store, out.data(), {grid_of(format), header.parameter, payload.data(), out.size()}, stream);
  } else {
    device::widen(store, out.data(), {format, const_cast<std::byte*>(payload.data()), out.size()}, stream);
  }
}

}  // namespace

std::optional<size_t> encode(const Codec& codec, std::span<const float> in, float* residual, const Moment& moment,
                             Bytes wire, Stream stream) {
  const size_t most = codec.most_bytes(in.size());
  if (const auto* dense = dynamic_cast<const Dense*>(&codec))
    return encode_dense(*dense, in, residual, moment, wire, stream);
  if (const auto* topk = dynamic_cast<const TopK*>(&codec)) {
    const Sparse what{topk->id(), topk->format(), topk->entries(in.size())};
    const auto choice = topk->exact() ? kernels::Choice::exact : kernels::Choice::near;
    device::encode_topk(sparse_wire(what, in, residual, wire), choice, stream);
    return topk->exact() ? std::optional(most) : std::nullopt;
  }
  const auto* random = dynamic_cast<const RandomK*>(&codec);
  PYCOLL_CHECK(random, "encode: ", codec.describe(), " has no kernels for CUDA");
  const Sparse what{random->id(), random->format(), random->entries(in.size())};
  device::encode_random(sparse_wire(what, in, residual, wire), random->seed(), moment.step, stream);
  return most;
}

WireHeader header_of(ConstBytes wire, Stream stream) {
  WireHeader header;
  PYCOLL_CHECK_AS(TransportError, wire.size() >= sizeof(header), "payload ", kSource, ": cut off in the header, ",
                  wire.size(), " of ", sizeof(header), " bytes");
  device::read(&header, wire.data(), sizeof(header), stream);
  return header;
}

size_t check(ConstBytes wire, Stream stream) {
  return checked(wire, header_of(wire, stream).count, stream).count;
}

void decode_into(std::span<float> out, ConstBytes wire, Stream stream) {
  decode(Store::into, out, wire, stream);
}

void decode_add(std::span<float> acc, ConstBytes wire, Stream stream) {
  decode(Store::add, acc, wire, stream);
}

size_t sum(const Codec& codec, std::span<const ConstBytes> wires, size_t count, Bytes wire, Stream stream) {
  const auto* dense = dynamic_cast<const Dense*>(&codec);
  PYCOLL_CHECK(dense && has_blocks(dense->parameters().format), "sum: ", codec.describe(), " has no blocks");
  const auto payload = [&](auto of) {
    PYCOLL_CHECK(of.size() >= codec.most_bytes(count), "sum: got a wire of ", of.size(), " bytes, wanted ",
                 codec.most_bytes(count), " for ", count, " elements");
    return of.data() + sizeof(WireHeader);
  };
  std::vector<const std::byte*> payloads;
  for (const ConstBytes each : wires) payloads.push_back(payload(each));
  device::requantize(quantizer_of(dense->parameters()), payloads, count, payload(wire), stream);
  return seal(*dense, count, wire, stream);
}

}  // namespace pycoll::codec::cuda
