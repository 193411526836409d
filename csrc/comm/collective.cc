// A collective from its arguments to the algorithm that does it: agree, select, prepare the arrays, run.
#include <cstring>

#include "comm/agree.h"
#include "comm/communicator.h"
#include "comm/pieces.h"
#include "core/copy.h"
#include "kernels/reduce.h"

namespace pycoll {
namespace {

// Up to here every rank shows its whole input on arrival and reads its peers': one handshake, no algorithm.
constexpr size_t kEagerBytes = 64 << 10;       // a rank shows
constexpr size_t kEagerReadBytes = 256 << 10;  // a rank reads
// From here on arrays in symmetric memory are read where they are.
constexpr size_t kInPlaceBytes = 8 << 10;
// Operations of so many bytes do not feel it if the machine is probed beside them.
constexpr size_t kProbingBytes = 32 << 10;
// Scratch memory above this is given back after the operation that needed it.
constexpr size_t kScratchKept = 16 << 20;

// "[3, 0, 5]", or the first eight of many.
std::string list_of(const Layout& layout) {
  std::string text;
  for (size_t i = 0; i < std::min(layout.size(), size_t(8)); ++i) text += concat(i ? ", " : "", layout[i].count);
  return concat("[", text, layout.size() > 8 ? ", ...]" : "]");
}

// FNV-1a over the counts; never 0, which stands for even counts.
uint64_t hash_of(const Layout& layout) {
  uint64_t hash = 1469598103934665603u;
  for (const Range& range : layout) hash = (hash ^ range.count) * 1099511628211u;
  return hash | 1;
}

// The same of what a codec is, where it is used, and of the step if it was given.
uint64_t hash_of(const Compression& compression) {
  uint64_t hash = 1469598103934665603u;
  for (const char letter : compression.codec->describe()) hash = (hash ^ uint8_t(letter)) * 1099511628211u;
  hash = (hash ^ uint64_t(compression.everywhere)) * 1099511628211u;
  return (hash ^ (compression.step ? *compression.step + 1 : 0)) * 1099511628211u | 1;
}

}  // namespace

Signature Communicator::signature_of(const Call& call) const {
  Signature s{
      call.kind, call.in.dtype, call.op, call.algo, rooted(call.kind) || point_to_point(call.kind) ? call.root : 0, 0,
      0};
  if (!reduces(call.kind)) s.op = ReduceOp::sum;
  switch (call.kind) {
    case Kind::barrier: s.dtype = DType::u8; break;
    case Kind::allreduce:
      s.count = call.in.count;
      if (call.compression.codec) s.detail = hash_of(call.compression);
      break;
    case Kind::reduce:
    case Kind::send:
    case Kind::sendrecv: s.count = call.in.count; break;
    case Kind::broadcast:
    case Kind::recv:
      s.dtype = call.out.dtype;
      s.count = call.out.count;
      break;
    case Kind::alltoall:
      // Uneven counts differ from rank to rank by nature; they are compared in pairs, later.
      s.count = call.uneven ? 0 : total_of(call.layout);
      s.detail = call.uneven ? 1 : 0;
      break;
    default:
      s.count = total_of(call.layout);
      s.detail = call.uneven ? hash_of(call.layout) : 0;
      if (call.kind == Kind::scatter) s.dtype = call.out.dtype;
  }
  return s;
}

Algo Communicator::select(const Call& call) const {
  const auto medium = shared_ ? algo::Medium::shared : algo::Medium::messages;
  if (call.compression.codec) return Algo::pairwise;  // none that shows arrays on arrival
  if (call.algo != Algo::automatic) return call.algo;
  if (options_.algo != Algo::automatic && algo::supports(options_.algo, call.kind, medium)) return options_.algo;
  size_t bytes = contribution(call);
  if (call.kind == Kind::allgather || call.kind == Kind::gather) bytes = total_of(call.layout) * size_of(call.in.dtype);
  if (call.kind == Kind::alltoall && call.uneven) bytes = 0;  // ranks differ in theirs, and must choose alike
  return options_.table.choose({call.kind, call.in.dtype, bytes, size(), nodes_, medium});
}

// The same call over scratch memory: halves widened to f32, arrays scaled by premul_sum's factor.
Call Communicator::prepare(const Call& call, bool widen) {
  Call inner = call;
  if (widen) {
    float* const wide = reinterpret_cast<float*>(wide_in_.get(call.in.count * sizeof(float)).data());
    kernels::widen_into(wide, call.in);
    inner.in = {reinterpret_cast<std::byte*>(wide), call.in.count, DType::f32};
    inner.out = {wide_out_.get(call.out.count * sizeof(float)).data(), call.out.count, DType::f32};
  } else {
    inner.in = {wide_in_.get(call.in.bytes()).data(), call.in.count, call.in.dtype};
  }
  if (call.op == ReduceOp::premul_sum) {
    const Buffer scaled{const_cast<std::byte*>(inner.in.data), inner.in.count, inner.in.dtype};
    kernels::scale_into(scaled, widen ? inner.in : call.in, call.factor);
    inner.op = ReduceOp::sum;
  }
  return inner;
}

// Packs lists, scales and widens where that is needed, runs, and puts the result where the user wants it.
void Communicator::collective(Call& call, Deadline deadline) {
  const bool packed = !call.pieces_in.empty();
  if (packed) {
    call.in = pack(call.pieces_in, pack_);
    call.out = {const_cast<std::byte*>(call.in.data), call.in.count, call.in.dtype};
  }
  const Signature mine = signature_of(call);
  node_->board().start(mine);
  const Algo algo = select(call);
  const bool encoded = bool(call.compression.codec);
  const bool premul = reduces(call.kind) && call.op == ReduceOp::premul_sum;
  const bool widen = reduces(call.kind) && is_half(call.in.dtype) && (premul || encoded || !algo::rounds_once(algo));
  std::optional<Call> prepared;
  if (widen || premul) prepared = prepare(call, widen);
  const Call& inner = prepared ? *prepared : call;
  const bool in_place = !packed && !prepared;

  if (shared_) {
    run_sharing(inner, call, mine, algo, in_place, deadline);
  } else {
    Net net(*world_, deadline);
    if (!algo::dissemination_equal(net, std::as_bytes(std::span(&mine, 1)))) explain(call, mine, deadline);
    run_algorithm(inner, algo, deadline);
  }

  if (widen && inner.out.count) kernels::narrow_into(call.out, reinterpret_cast<const float*>(inner.out.data));
  if (packed && (call.kind != Kind::reduce || rank() == call.root)) unpack(call.pieces_out, call.in);
  for (Scratch* scratch : {&pack_, &wide_in_, &wide_out_, &scratch_, &sums_, &residual_}) scratch->trim(kScratchKept);
  node_->board().complete();
}

// Every rank shows on arrival what it means to do, and its whole input or where its arrays are.
void Communicator::run_sharing(const Call& inner, const Call& call, const Signature& mine, Algo algo, bool in_place,
                               Deadline deadline) {
  ShmTransport& shm = *node_;
  const int parity = shm.next_parity();
  shm::Arrival& cell = shm.arrival(rank(), parity);
  const size_t bytes = contribution(inner);
  const bool eager = algo == Algo::direct && bytes <= kEagerBytes && bytes * size_t(size()) <= kEagerReadBytes &&
                     !(call.kind == Kind::alltoall && call.uneven);
  const bool in_cell = bytes <= sizeof cell.payload;
  // Where the arrays are goes with the call if they may be reached there; scratch memory is in no region.
  Place own;
  if (bytes >= kInPlaceBytes && algo == Algo::direct) own = in_place ? place_of(inner) : addresses_of(inner);
  const bool staged = eager && !in_cell && !own.in_region;
  const size_t place = eager && !in_cell ? shm.claim(bytes) : 0;
  const auto shown = [&](int peer) { return in_cell ? shm.arrival(peer, parity).payload : shm.stage(peer, place); };
  cell.signature = mine;
  if (!eager || !in_cell) {
    static_assert(sizeof own <= sizeof cell.payload);
    std::memcpy(cell.payload, &own, sizeof own);
  }
  if (bytes && (staged || (eager && in_cell)) && (call.kind != Kind::broadcast || rank() == call.root))
    copy_into(shown(rank()), inner.in.data, inner.in.bytes(), shm.staged_stores());
  if (bytes >= kProbingBytes) shm.ask_for_probe();
  shm.barrier(deadline);
  bool agreed = true;
  for (int peer = 0; peer < size(); ++peer) agreed &= shm.arrival(peer, parity).signature == mine;
  if (!agreed) {
    shm.reset_claims();
    explain(call, mine, deadline);
  }
  shm.probe_if_asked(deadline);
  bool all_staged = true;
  if (bytes >= kInPlaceBytes && algo == Algo::direct) {
    std::vector<Place> places(static_cast<size_t>(size()));
    for (int peer = 0; peer < size(); ++peer) {
      std::memcpy(&places[size_t(peer)], shm.arrival(peer, parity).payload, sizeof(Place));
      all_staged &= !places[size_t(peer)].in_region;
    }
    if (run_in_place(inner, std::move(places), deadline)) return;
  }
  if (!eager || !all_staged) return run_algorithm(inner, algo, deadline);
  inputs_.clear();
  for (int peer = 0; peer < size(); ++peer)
    inputs_.push_back(peer == rank() && inner.in.count ? inner.in.data : shown(peer));
  shm.account(bytes * size_t(size() - 1));
  run_eager(inner);
}

void Communicator::explain(const Call& call, const Signature& mine, Deadline deadline) {
  Net net(*world_, deadline);
  std::string called = describe(mine);
  if (call.uneven && call.kind != Kind::alltoall) called += " counts " + list_of(call.layout);
  if (call.compression.codec)
    called += concat(" codec ", call.compression.codec->describe(), call.compression.everywhere ? " everywhere" : "",
                     call.compression.step ? concat(" step ", *call.compression.step) : "");
  const std::string sentence = disagreement(net, called, call.site ? call.site() : "", scratch_);
  node_->board().complete();  // ranks can go on: all raise this
  throw MismatchError(sentence);
}

// Every rank's contribution is at inputs_[rank]; only local work is left.
void Communicator::run_eager(const Call& call) {
  const auto reduction = reduction_of(call);
  const auto chunk = [&](int peer, Range range) {
    return ConstBuffer{inputs_[size_t(peer)] + range.begin * size_of(call.in.dtype), range.count, call.in.dtype};
  };
  const auto copy = [](Buffer out, ConstBuffer from) {
    if (out.count) std::memcpy(out.data, from.data, out.bytes());
  };
  switch (call.kind) {
    case Kind::reduce:
      if (rank() != call.root) break;
      [[fallthrough]];
    case Kind::allreduce: kernels::reduce_all(call.out, inputs_, reduction.op, reduction.divisor); break;
    case Kind::reduce_scatter: {
      for (auto& input : inputs_) input += call.layout[size_t(rank())].begin * size_of(call.in.dtype);
      kernels::reduce_all(call.out, inputs_, reduction.op, reduction.divisor);
      break;
    }
    case Kind::broadcast:
      if (rank() != call.root) copy(call.out, chunk(call.root, {0, call.out.count}));
      break;
    case Kind::gather:
      if (rank() != call.root) break;
      [[fallthrough]];
    case Kind::allgather:
      for (int peer = 0; peer < size(); ++peer) {
        const Range range = call.layout[size_t(peer)];
        copy(call.out[range], chunk(peer, {0, range.count}));
      }
      break;
    case Kind::scatter: copy(call.out, chunk(call.root, call.layout[size_t(rank())])); break;
    case Kind::alltoall:
      for (int peer = 0; peer < size(); ++peer)
        copy(call.out[call.received[size_t(peer)]], chunk(peer, call.layout[size_t(rank())]));
      break;
    default: break;
  }
}

}  // namespace pycoll
