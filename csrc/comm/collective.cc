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
    case Kind::reduce: s.count = call.in.count; break;
    case Kind::send:
    case Kind::sendrecv:
      s.count = call.in.count;
      s.detail = call.tag;
      break;
    case Kind::broadcast:
    case Kind::recv:
      s.dtype = call.out.dtype;
      s.count = call.out.count;
      s.detail = call.tag;
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

Plan Communicator::plan_of(const Call& call) const {
  Plan plan;
  plan.kind = call.kind;
  plan.asked = call.algo;
  plan.op = call.op;
  plan.in_dtype = call.in.dtype;
  plan.out_dtype = call.out.dtype;
  plan.uneven = call.uneven;
  plan.root = call.root;
  plan.in_count = call.in.count;
  plan.out_count = call.out.count;
  plan.layout = call.layout;
  plan.signature = signature_of(call);
  plan.algo = select(call);
  plan.encoded = bool(call.compression.codec);
  plan.premul = reduces(call.kind) && call.op == ReduceOp::premul_sum;
  plan.widen =
      reduces(call.kind) && is_half(call.in.dtype) && (plan.premul || plan.encoded || !algo::rounds_once(plan.algo));
  plan.bytes = contribution(call);
  plan.eager = plan.algo == Algo::direct && plan.bytes <= kEagerBytes &&
               plan.bytes * size_t(size()) <= kEagerReadBytes && !(call.kind == Kind::alltoall && call.uneven);
  plan.in_cell = plan.eager && plan.bytes <= sizeof shm::Arrival::payload;
  return plan;
}

// Packs lists, scales and widens where that is needed, runs, and puts the result where the user wants it.
void Communicator::collective(Call& call, bool repeats, Deadline deadline) {
  const bool packed = !call.pieces_in.empty();
  if (packed) {
    call.in = pack(call.pieces_in, pack_);
    call.out = {const_cast<std::byte*>(call.in.data), call.in.count, call.in.dtype};
  }
  if (!repeats) plan_ = plan_of(call);
  node_->board().start(plan_.signature);
  if (shared_ && !packed && !plan_.premul && !plan_.widen && !plan_.encoded) {
    run_sharing(call, call, plan_, deadline);
    scratch_.trim(kScratchKept);
  } else {
    prepare_and_run(call, deadline);
  }
  node_->board().complete();
}

void Communicator::prepare_and_run(Call& call, Deadline deadline) {
  const bool prepared = plan_.widen || plan_.premul, packed = !call.pieces_in.empty();
  Call inner = prepared ? prepare(call, plan_.widen) : call;
  if (shared_) {
    Plan plan = plan_of(inner);
    plan.signature = plan_.signature;
    plan.algo = plan_.algo;
    run_sharing(inner, call, plan, deadline);
  } else {
    Net net(*world_, deadline);
    if (!algo::dissemination_equal(net, std::as_bytes(std::span(&plan_.signature, 1)))) explain(call, deadline);
    run_algorithm(inner, plan_.algo, deadline);
  }
  if (plan_.widen && inner.out.count) kernels::narrow_into(call.out, reinterpret_cast<const float*>(inner.out.data));
  if (packed && (call.kind != Kind::reduce || rank() == call.root)) unpack(call.pieces_out, call.in);
  for (Scratch* scratch : {&pack_, &wide_in_, &wide_out_, &scratch_, &sums_, &residual_}) scratch->trim(kScratchKept);
}

// Every rank shows on arrival what it means to do, and its whole input or where its arrays are.
void Communicator::run_sharing(const Call& inner, const Call& call, const Plan& plan, Deadline deadline) {
  ShmTransport& shm = *node_;
  const int parity = shm.next_parity();
  shm::Arrival& cell = shm.arrival(rank(), parity);
  const bool gives = call.kind != Kind::broadcast || rank() == call.root;
  size_t place = 0;
  bool placed = false;  // arrays may be reached where they are, and ranks show where that is
  // The cell last, at once: peers that look at it take the line away, and stores become visible in their order.
  if (plan.in_cell) {
    if (plan.bytes && gives) std::memcpy(cell.payload, inner.in.data, inner.in.bytes());
  } else {
    placed = plan.algo == Algo::direct && plan.bytes >= kInPlaceBytes;
    Place own;
    if (placed) own = &inner == &call && call.pieces_in.empty() ? place_of(inner) : addresses_of(inner);
    if (plan.eager) place = shm.claim(plan.bytes);
    if (plan.eager && gives && !own.in_region) show(inner, shm.stage(rank(), place));
    if (plan.bytes >= kProbingBytes) shm.ask_for_probe();
    static_assert(sizeof own <= sizeof cell.payload);
    if (placed) std::memcpy(cell.payload, &own, sizeof own);
  }
  cell.signature = plan.signature;
  shm.barrier(deadline);
  bool agreed = true;
  for (int peer = 0; peer < size(); ++peer) agreed &= shm.arrival(peer, parity).signature == plan.signature;
  if (!agreed) {
    shm.reset_claims();
    explain(call, deadline);
  }
  shm.probe_if_asked(deadline);
  bool all_staged = true;
  if (placed) {
    std::vector<Place> places(static_cast<size_t>(size()));
    for (int peer = 0; peer < size(); ++peer) {
      std::memcpy(&places[size_t(peer)], shm.arrival(peer, parity).payload, sizeof(Place));
      all_staged &= !places[size_t(peer)].in_region;
    }
    if (run_in_place(inner, std::move(places), deadline)) return;
  }
  if (!plan.eager || !all_staged) return run_algorithm(inner, plan.algo, deadline);
  inputs_.resize(size_t(size()));
  for (int peer = 0; peer < size(); ++peer)
    inputs_[size_t(peer)] = plan.in_cell ? shm.arrival(peer, parity).payload : shm.stage(peer, place);
  if (inner.in.count) inputs_[size_t(rank())] = inner.in.data;
  shm.account(plan.bytes * size_t(size() - 1));
  run_eager(inner);
}

// Puts into this rank's stage what its peers will read. Its own chunk of an array with one for each rank is not.
void Communicator::show(const Call& call, std::byte* stage) const {
  if (!call.in.count) return;
  const bool divided = call.kind == Kind::reduce_scatter || call.kind == Kind::scatter || call.kind == Kind::alltoall;
  const Range own = divided ? call.layout[size_t(rank())] : Range{call.in.count, 0};
  for (const Range range : {Range{0, own.begin}, Range{own.end(), call.in.count - own.end()}}) {
    const ConstBuffer part = call.in[range];
    copy_into(stage + range.begin * size_of(part.dtype), part.data, part.bytes(), node_->staged_stores());
  }
}

// Raises what all ranks raise.
void Communicator::explain(const Call& call, Deadline deadline) {
  Net net(*world_, deadline);
  std::string called = describe(plan_.signature);
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
