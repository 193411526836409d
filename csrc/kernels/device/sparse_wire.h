// Sparse wires as sequences of kernels, for whatever machine runs them (select.h): chosen entries, what is written of
// them, and the header. Nothing waits for the host, which may not know how many entries there are.
#pragma once
#include "kernels/device/checksum_body.h"
#include "kernels/device/random_body.h"
#include "kernels/device/select.h"
#include "kernels/device/sparse_body.h"

namespace pycoll::kernels::device {
namespace {

// What is encoded: in, or in + residual, and where the wire goes. Of the headers, bytes and parameter are filled in.
struct Wire {
  Floats in;
  float* residual;  // or null
  ValueFormat format;
  Header sparse, dense;
  std::byte* data;

  std::byte* payload() const { return data + sizeof(Header); }
  uint64_t dense_bytes() const { return in.count * sizeof(float); }
};

// Of which number of entries on, up to k, a sparse payload is longer than the array; k + 1 if it never is.
inline uint64_t dense_from(uint64_t count, uint64_t k, ValueFormat format) {
  uint64_t begin = 0, end = k + 1;
  while (begin < end) {
    const uint64_t middle = begin + (end - begin) / 2;
    const SparseLayout layout(count, middle, format);
    if (layout.bytes > layout.dense_bytes()) {
      end = middle;
    } else {
      begin = middle + 1;
    }
  }
  return begin;
}

// The header of entries whose number the device knows.
struct SparseHeader {
  Header sparse, dense;
  Chosen chosen;
  uint64_t count;
  ValueFormat format;

  PYCOLL_DEVICE Header operator()() const {
    const SparseLayout layout(count, *chosen.entries, format);
    Header header = chosen.dense() ? dense : sparse;
    header.describe(chosen.dense() ? layout.dense_bytes() : layout.bytes,
                    chosen.dense() ? 0 : uint32_t(layout.entries));
    return header;
  }
};

// Memory of an encoder, in this order: what entries are chosen in, these entries, and how many they are.
struct WireLayout {
  size_t index, value, entries, kept, bytes;
  constexpr WireLayout(size_t choosing, size_t k)
      : index(round_up(choosing, 16)),
        value(index + (k + 3) / 4 * 16),
        entries(value + (k + 3) / 4 * 16),
        kept(entries + 16),
        bytes(kept + 16) {}
  Entries at(std::byte* scratch) const {
    return {reinterpret_cast<uint32_t*>(scratch + index), reinterpret_cast<float*>(scratch + value)};
  }
};

template <class Machine>
void write_values(Machine& machine, const Chosen& chosen, uint64_t most, ValueFormat format, std::byte* to) {
  with_values(format,
              [&](auto constant) { machine.run((most + kTile - 1) / kTile, PackValues<constant()>{chosen, to}); });
}

template <class Machine>
uint64_t blocks_for(const Machine& machine, uint64_t threads) {
  return std::min<uint64_t>(machine.fill(), threads / kThreads + 1);
}

inline WireLayout topk_wire_layout(size_t count, size_t k) {
  return {TopkLayout(count, k).bytes, k};
}

// The k largest of them, exactly or nearly. `scratch` has topk_wire_layout().bytes, aligned to 16; k <= in.count.
template <class Machine>
void encode_topk(Machine& machine, const Wire& wire, size_t k, Choice choice, std::byte* scratch) {
  const WireLayout layout = topk_wire_layout(wire.in.count, k);
  const SparseLayout most(wire.in.count, k, wire.format);
  auto* const entries = reinterpret_cast<uint32_t*>(scratch + layout.entries);
  auto* const kept = reinterpret_cast<TopkKept*>(scratch + layout.kept);
  const Chosen chosen{layout.at(scratch), entries, dense_from(wire.in.count, k, wire.format), wire.residual};
  if (choice == Choice::exact) machine.zero(scratch + layout.kept, sizeof(TopkKept));
  select(machine, {wire.in, wire.residual, k, choice == Choice::exact ? kept : nullptr, chosen.from, entries}, scratch);
  if (chosen.dense_from <= k) machine.zero(wire.payload(), wire.dense_bytes());
  write_values(machine, chosen, k, wire.format, wire.payload() + most.values);
  machine.run(blocks_for(machine, std::max<uint64_t>(k, most.values / 4)),
              PackPlaces{chosen, wire.in.count, wire.format, wire.payload()});
  seal(machine, wire.data, std::min(most.bytes, most.dense_bytes()),
       SparseHeader{wire.sparse, wire.dense, chosen, wire.in.count, wire.format});
}

// One of each stratum. `scratch` has WireLayout(0, strata.k).bytes, aligned to 16.
template <class Machine>
void encode_random(Machine& machine, const Wire& wire, const Strata& strata, std::byte* scratch) {
  const WireLayout layout(0, strata.k);
  const uint64_t bytes = Strata::kHeadBytes + values_bytes(wire.format, strata.k);
  const bool dense = bytes > wire.dense_bytes();
  auto* const entries = reinterpret_cast<uint32_t*>(scratch + layout.entries);
  const Chosen chosen{layout.at(scratch), entries, dense ? 0 : strata.k + 1, wire.residual};
  if (wire.residual) {
    const Accumulate accumulate{{wire.in, {wire.residual, wire.in.count}}};
    machine.run(accumulate.blocks(), accumulate);
  }
  auto* const head = dense ? nullptr : reinterpret_cast<uint32_t*>(wire.payload());
  machine.run(blocks_for(machine, strata.k / 4), Draw{strata, wire.in.data, wire.residual, chosen.from, entries, head});
  Header header = dense ? wire.dense : wire.sparse;
  if (dense) {
    machine.zero(wire.payload(), wire.dense_bytes());
    machine.run(blocks_for(machine, strata.k), PackPlaces{chosen, wire.in.count, wire.format, wire.payload()});
    header.describe(wire.dense_bytes(), 0);
  } else {
    write_values(machine, chosen, strata.k, wire.format, wire.payload() + Strata::kHeadBytes);
    header.describe(bytes, uint32_t(strata.k));
  }
  seal(machine, wire.data, header.bytes(), Known{header});
}

// --- Back; the payload has been checked.

template <class Sink, class Machine>
void decode_sparse(Machine& machine, Floats out, const SparsePayload& from) {
  if constexpr (std::is_same_v<Sink, Into>)
    machine.zero(reinterpret_cast<std::byte*>(out.data), out.count * sizeof(float));
  machine.run(from.layout.blocks, Unpack<Sink>{from, out.data});
}

template <class Sink, class Machine>
void decode_random(Machine& machine, const Undraw<Sink>& from) {
  if constexpr (std::is_same_v<Sink, Into>)
    machine.zero(reinterpret_cast<std::byte*>(from.out), from.count * sizeof(float));
  machine.run(blocks_for(machine, from.k / 4), from);
}

}  // namespace
}  // namespace pycoll::kernels::device
