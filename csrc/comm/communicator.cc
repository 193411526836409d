#include "comm/communicator.h"

#include <algorithm>

namespace pycoll {
Communicator::Communicator(std::shared_ptr<ShmTransport> node, std::shared_ptr<Transport> world, Options options)
    : node_(std::move(node)),
      world_(world ? std::move(world) : node_),
      options_(std::move(options)),
      shared_(world_.get() == static_cast<Transport*>(node_.get())),
      p2p_(*world_),
      engine_(
          [this](Call& call, std::shared_ptr<Work> work) {
            try {
              if (point_to_point(call.kind)) {
                if (failure_) failure_->raise();
                p2p_.start(call, Deadline::after(call.timeout > 0 ? call.timeout : options_.timeout), work);
                return;
              }
              execute(call, plan_.fits(call));
              work->finish(nullptr);
            } catch (...) {
              work->finish(std::current_exception());
            }
          },
          [this] {
            try {
              return p2p_.poll() ? Engine::Progress::pending : Engine::Progress::idle;
            } catch (...) {
              const std::exception_ptr error = std::current_exception();
              try {
                fail();
              } catch (...) {
              }
              p2p_.fail(error);
              return Engine::Progress::idle;
            }
          },
          world_->bell()) {
  // A peer may need its message taken before it comes to the operation that this rank waits in.
  const auto beside = [this] { p2p_.poll(); };
  node_->set_beside(beside);
  if (!shared_) world_->set_beside(beside);
  if (options_.node_of.empty()) options_.node_of.assign(size_t(size()), 0);
  nodes_ = *std::max_element(options_.node_of.begin(), options_.node_of.end()) + 1;
}

Communicator::~Communicator() {
  close();
}

void Communicator::set_timeout(double seconds) {
  PYCOLL_CHECK(seconds > 0, "timeout is ", seconds, " s, wanted more than 0");
  options_.timeout = seconds;
}

std::string Communicator::settle() {
  const Deadline deadline = Deadline::after(options_.timeout);
  // The first meeting shows where each rank's memory is, the second whether it can be read, the third what it is like.
  for (int meeting = 0; meeting < 2; ++meeting) node_->barrier(deadline);
  node_->ask_for_probe();
  node_->barrier(deadline);
  node_->probe_if_asked(deadline);
  node_->barrier(deadline);
  return describe(node_->findings());
}

void Communicator::close() {
  if (closed_.exchange(true)) return;
  const bool idle = engine_.stop(options_.timeout);
  if (idle) {
    p2p_.fail(std::make_exception_ptr(Error("the communicator was closed before this operation was done")));
    world_->abandon();
  }
  node_->board().leave();
}

void Communicator::abort(const std::string& why) {
  if (closed_) return;
  const Board& board = node_->board();
  const Member& self = board.member(board.index());
  const std::string doing = board.doing(board.index());
  const Failure failure{Failure::Kind::peer_failed, rank(), self.host, doing,
                        concat("rank ", rank(), " on host ", self.host, " ", why, "; ", doing)};
  node_->announce(failure);
  if (!shared_) world_->announce(failure);
}

Communicator::Stats Communicator::stats() const {
  const uint64_t wire_bytes = world_->wire_bytes() + (shared_ ? 0 : node_->wire_bytes());
  return {operations_ + p2p_.finished(), wire_bytes, failures_ + p2p_.refused()};
}

// Each sentence names the operation, this rank, what was wanted and what came.
void Communicator::validate(const Call& call) const {
  const std::string_view kind = name_of(call.kind);
  PYCOLL_CHECK(!closed_, kind, ": rank ", rank(), "'s communicator is closed");
  PYCOLL_CHECK(call.timeout >= 0, kind, ": rank ", rank(), " got a timeout of ", call.timeout,
               " s, wanted more than 0");
  const bool has_peer = rooted(call.kind) || point_to_point(call.kind);
  const bool from_any = call.kind == Kind::recv && call.root == kAnySource;
  PYCOLL_CHECK(!has_peer || from_any || (call.root >= 0 && call.root < size()), kind, ": rank ", rank(), " named rank ",
               call.root, ", wanted 0 to ", size() - 1);
  PYCOLL_CHECK(!point_to_point(call.kind) || call.root != rank(), kind, ": rank ", rank(), " named itself as the peer");
  if (call.kind == Kind::sendrecv)
    PYCOLL_CHECK(call.source >= 0 && call.source < size() && call.source != rank(), kind, ": rank ", rank(),
                 " named source ", call.source, ", wanted another rank, 0 to ", size() - 1);
  const DType dtype = call.pieces_in.empty() ? call.in.dtype : call.pieces_in.front().dtype;
  PYCOLL_CHECK(!reduces(call.kind) || is_defined(call.op, dtype), kind, ": rank ", rank(), " asked for ",
               name_of(call.op), " of ", name_of(dtype), ", which is not defined");
  if (call.compression.codec) {
    PYCOLL_CHECK(call.kind == Kind::allreduce, kind, ": rank ", rank(), " got a codec, which only allreduce takes");
    PYCOLL_CHECK(dtype == DType::f32 || is_half(dtype), kind, ": rank ", rank(), " got a codec and an array of ",
                 name_of(dtype), ", wanted f32, f16 or bf16");
    PYCOLL_CHECK(call.op == ReduceOp::sum || call.op == ReduceOp::avg || call.op == ReduceOp::premul_sum, kind,
                 ": rank ", rank(), " got a codec and op ", name_of(call.op), ", wanted sum, avg or premul_sum");
    const codec::Feedback* const feedback = call.compression.feedback;
    size_t count = call.in.count;
    for (const ConstBuffer& piece : call.pieces_in) count += piece.count;
    PYCOLL_CHECK(count < (uint64_t(1) << 32), kind, ": rank ", rank(), " got a codec and ", count,
                 " elements, wanted fewer than 2^32");
    PYCOLL_CHECK(!feedback || !(feedback->residual || feedback->stored.data) || feedback->count == count, kind,
                 ": rank ", rank(), " got a residual of ", feedback->count, " elements for an array of ", count);
    PYCOLL_CHECK(call.algo != Algo::direct && call.algo != Algo::hierarchical, kind, ": rank ", rank(),
                 " got a codec and algo ", name_of(call.algo), ", wanted one that sends messages");
  }
  const auto medium = shared_ ? algo::Medium::shared : algo::Medium::messages;
  PYCOLL_CHECK(algo::supports(call.algo, call.kind, medium), kind, ": rank ", rank(), " asked for algo \"",
               name_of(call.algo), "\", which does not do that over ", world_->name());
}

void Communicator::run(Call& call) {
  std::exception_ptr error;
  const bool ran = engine_.run_here([&] {
    try {
      const bool repeats = plan_.fits(call);
      if (closed_ || call.timeout != 0 || !repeats) validate(call);
      execute(call, repeats);
    } catch (...) {
      error = std::current_exception();
    }
  });
  if (ran) {
    if (error) std::rethrow_exception(error);
    return;
  }
  validate(call);
  // The engine's thread does not know where this one is.
  if (call.site) call.site = [site = call.site()] { return site; };
  const auto work = std::make_shared<Work>();
  engine_.enqueue(call, work);
  try {
    work->wait(3e8);  // the operation has a deadline of its own
  } catch (...) {
    // Interrupted: the arrays are the caller's again once this returns, so the operation has to end first.
    abort("was interrupted");
    work->wait_to_end();
    throw;
  }
  if (const auto failed = work->exception()) std::rethrow_exception(failed);
}

std::shared_ptr<Work> Communicator::submit(Call call, std::shared_ptr<void> kept) {
  validate(call);
  const auto work = std::make_shared<Work>();
  work->keep(std::move(kept));
  engine_.enqueue(std::move(call), work);
  return work;
}

// `repeats`: plan_ fits.
void Communicator::execute(Call& call, bool repeats) {
  if (failure_) failure_->raise();
  const Deadline deadline = Deadline::after(call.timeout > 0 ? call.timeout : options_.timeout);
  try {
    // Of a rank that comes late: what the others have raised meanwhile.
    if (node_->board().failed()) node_->board().failure()->raise();
    if (point_to_point(call.kind)) {
      node_->board().called(signature_of(call));
      p2p_.start(call, deadline, nullptr);
      p2p_.finish();
    } else {
      collective(call, repeats, deadline);
    }
    operations_.store(operations_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  } catch (...) {
    fail();
  }
}

// In a catch block: tells the peers if the group cannot go on, and raises again.
void Communicator::fail() {
  failures_.fetch_add(1, std::memory_order_relaxed);
  Failure failure = Failure::from(std::current_exception());
  if (failure.kind == Failure::Kind::none) throw;
  if (failure.kind == Failure::Kind::transport) failure.text = concat("rank ", rank(), ": ", failure.text);
  if (!failure_) {
    failure_ = failure;
    failed_ = true;
    node_->announce(failure);
    if (!shared_) world_->announce(failure);
    world_->abandon();
    if (!shared_) node_->abandon();
    p2p_.fail(std::current_exception());
  }
  throw;
}

}  // namespace pycoll
