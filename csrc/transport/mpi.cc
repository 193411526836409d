#include "transport/mpi.h"

#include <sched.h>

#include <cstring>
#include <ctime>
#include <utility>

#if __has_include(<mpi-ext.h>)
#include <mpi-ext.h>  // Open MPI declares its extensions apart
#endif

namespace pycoll {
namespace {

constexpr int kNoticeTag = 3;
constexpr size_t kMessageMost = size_t(1) << 30;  // MPI counts are int
// Up to its eager limit an MPI sends at once. Above, both sides first exchange short messages, which over TCP queue up
// behind the data under way: the link then rests for as long as that takes. Open MPI's limit over TCP is 64 KiB, its
// header included. So this is the longest piece that travels, until an array is too long to be sent ahead of its
// receive.
constexpr size_t kEagerPiece = 60 << 10;
constexpr size_t kEagerMost = 4 << 20;
constexpr size_t kDepth = 16;
constexpr int kSpins = 2000;    // tests before the first look around
constexpr int kHot = 4;         // tests before the first yield: what delivers the message may need this core
constexpr double kLook = 0.02;  // seconds between two

constexpr int tag_of(Lane lane) {
  return 1 + int(lane);
}

// Error classes of User-Level Failure Mitigation, where this MPI has them.
#if defined(MPIX_ERR_PROC_FAILED)
constexpr int kProcFailed = MPIX_ERR_PROC_FAILED, kRevoked = MPIX_ERR_REVOKED;
#else
constexpr int kProcFailed = -1, kRevoked = -1;
#endif

bool peer_lost(int code) {
  int kind = MPI_SUCCESS;
  if (code != MPI_SUCCESS) MPI_Error_class(code, &kind);
  return kind == kProcFailed || kind == kRevoked;
}

constexpr int kDyingMilliseconds = 1500;
constexpr double kMoment = 0.3;  // seconds that abandoned requests get

// True if the request ended in time, well or not.
bool end(MPI_Request& request, Deadline deadline) {
  for (int done = 0;; sched_yield()) {
    if (MPI_Test(&request, &done, MPI_STATUS_IGNORE) != MPI_SUCCESS || done) return true;
    if (deadline.passed()) return false;
  }
}

template <size_t N>
void put(char (&field)[N], const std::string& text) {
  const size_t count = std::min(text.size(), N - 1);
  std::memcpy(field, text.data(), count);
  field[count] = 0;
}

}  // namespace

void check_mpi(int code, const char* call) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(code, text, &length);
  throw TransportError(
      concat(std::string(call).substr(0, std::string(call).find('(')), ": ", std::string(text, size_t(length))));
}

MpiTransport::MpiTransport(MPI_Comm comm, std::shared_ptr<ShmTransport> node, std::vector<Member> members)
    : Transport(members.empty() ? 0 : [&] { int r = 0; MPI_Comm_rank(comm, &r); return r; }(), int(members.size())),
      comm_(comm),
      node_(std::move(node)),
      members_(std::move(members)),
      notice_(new Notice{}) {
  PYCOLL_MPI(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN));
  PYCOLL_MPI(MPI_Irecv(notice_, int(sizeof *notice_), MPI_BYTE, MPI_ANY_SOURCE, kNoticeTag, comm_, &notice_request_));
}

// Deep enough to keep a link of 10 Gbit/s busy for most of a millisecond.
Pipeline MpiTransport::pipeline() const {
  return {kEagerPiece, kDepth};
}

MpiTransport::~MpiTransport() {
  int finalized = 0;
  MPI_Finalized(&finalized);
  if (finalized || failure_ || abandoned_with_traffic_) return;  // freeing waits for peers that may be gone
  abandon();
  MPI_Comm_free(&comm_);
}

Transport::Ticket MpiTransport::post(int peer, std::byte* data, size_t bytes, Lane lane, bool receiving) {
  if (free_.empty()) {
    free_.push_back(transfers_.size());
    transfers_.emplace_back();
  }
  const Ticket ticket = free_.back();
  free_.pop_back();
  Transfer& transfer = transfers_[ticket];
  transfer = {std::move(transfer.requests), bytes, peer, receiving, false};
  transfer.requests.clear();
  const size_t most = bytes <= kEagerMost ? kEagerPiece : kMessageMost;
  size_t at = 0;
  do {
    const size_t part = std::min(most, bytes - at);
    MPI_Request& request = transfer.requests.emplace_back(MPI_REQUEST_NULL);
    const int code = receiving ? MPI_Irecv(data + at, int(part), MPI_BYTE, peer, tag_of(lane), comm_, &request)
                               : MPI_Isend(data + at, int(part), MPI_BYTE, peer, tag_of(lane), comm_, &request);
    if (code != MPI_SUCCESS) failed(peer, code, receiving ? "MPI_Irecv" : "MPI_Isend");
    at += part;
  } while (at < bytes);
  return ticket;
}

Transport::Ticket MpiTransport::post_send(int peer, ConstBytes bytes, Lane lane) {
  // Read only; MPI_Isend takes a pointer to const.
  return post(peer, const_cast<std::byte*>(bytes.data()), bytes.size(), lane, false);
}

Transport::Ticket MpiTransport::post_recv(int peer, Bytes bytes, Lane lane) {
  return post(peer, bytes.data(), bytes.size(), lane, true);
}

bool MpiTransport::complete(Transfer& transfer) {
  while (!transfer.complete && !transfer.requests.empty()) {
    int done = 0;
    MPI_Status status;
    const int code = MPI_Test(&transfer.requests.back(), &done, &status);
    if (code != MPI_SUCCESS) failed(transfer.peer, code, transfer.receiving ? "receive" : "send");
    if (!done) return false;
    if (transfer.receiving) {
      int bytes = 0;
      PYCOLL_MPI(MPI_Get_count(&status, MPI_BYTE, &bytes));
      transfer.wanted -= size_t(bytes);
    }
    transfer.requests.pop_back();
  }
  if (!transfer.complete && transfer.receiving)
    PYCOLL_CHECK_AS(TransportError, transfer.wanted == 0, "mpi: rank ", rank(), " got ", transfer.wanted,
                    " bytes fewer than wanted from rank ", transfer.peer);
  transfer.complete = true;
  return true;
}

bool MpiTransport::test(Ticket ticket) {
  if (!complete(transfers_[ticket])) return false;
  free_.push_back(ticket);
  return true;
}

void MpiTransport::wait(Ticket ticket, Deadline deadline) {
  Transfer& transfer = transfers_[ticket];
  wait_until([&] { return complete(transfer); }, transfer.peer, deadline);
  free_.push_back(ticket);
}

void MpiTransport::wait_until(const std::function<bool()>& ready, int peer, Deadline deadline) {
  for (int i = 0; i < kSpins; ++i) {
    if (ready()) return;
    move_beside();
    if (i > kHot) sched_yield();
  }
  auto looked = Deadline::Clock::now();
  for (int round = 0; !ready(); ++round) {
    move_beside();
    // MPI offers no sleep that a message ends: yield at first, then rest for ever longer, to 0.2 ms.
    sched_yield();
    if (round > 4000) {
      const timespec rest{0, std::min(200000L, long(round) * 10)};
      nanosleep(&rest, nullptr);
    }
    const auto now = Deadline::Clock::now();
    if (now - looked < std::chrono::duration<double>(kLook)) continue;
    looked = now;
    const int index = node_index(peer);
    node_->board().check(ready, index < 0 ? std::vector<int>{} : std::vector<int>{index});
    check_notice();
    poll_interrupt();
    if (deadline.passed() && !ready()) expire(peer);
  }
}

void MpiTransport::check(int peer, const std::function<bool()>& ready) {
  const int index = node_index(peer);
  if (index >= 0) node_->board().check(ready, {index});
  check_notice();
}

// A notice of a failure from another node.
void MpiTransport::check_notice() {
  const std::lock_guard lock(failure_mutex_);
  if (failure_) failure_->raise();
  if (notice_request_ == MPI_REQUEST_NULL) return;
  int done = 0;
  // An error here is ULFM's word that some rank, somewhere, has died while the receive goes on: those who wait for that
  // rank will say so.
  if (MPI_Test(&notice_request_, &done, MPI_STATUS_IGNORE) != MPI_SUCCESS || !done) return;
  failure_ = Failure{Failure::Kind(notice_->kind), notice_->rank, notice_->host, notice_->operation, notice_->text};
  failure_->raise();
}

void MpiTransport::announce(const Failure& failure) {
  {
    const std::lock_guard lock(failure_mutex_);
    if (!failure_) failure_ = failure;
  }
  // Never freed: nobody waits for the sends, and a communicator fails once.
  auto* const out = new Notice{uint32_t(failure.kind), failure.rank, {}, {}, {}};
  put(out->host, failure.host);
  put(out->operation, failure.operation);
  put(out->text, failure.text);
  for (int peer = 0; peer < size(); ++peer) {
    if (peer == rank() || node_index(peer) >= 0) continue;  // on this node the board says it
    MPI_Request request;
    if (MPI_Isend(out, int(sizeof *out), MPI_BYTE, peer, kNoticeTag, comm_, &request) == MPI_SUCCESS)
      MPI_Request_free(&request);
  }
}

// Memory of an operation that failed belongs to the user again: receives are cancelled, and what a peer has begun to
// send gets a moment to end. What is under way after that is with a peer that is gone.
void MpiTransport::abandon() {
  int finalized = 0;
  MPI_Finalized(&finalized);
  if (finalized) return;
  if (notice_request_ != MPI_REQUEST_NULL) {  // MPI complains at its end of a receive that was left
    MPI_Cancel(&notice_request_);
    if (end(notice_request_, Deadline::after(kMoment))) delete std::exchange(notice_, nullptr);
    notice_request_ = MPI_REQUEST_NULL;
  }
  const Deadline deadline = Deadline::after(kMoment);
  for (Transfer& transfer : transfers_) {
    for (MPI_Request& request : transfer.requests) {
      if (request == MPI_REQUEST_NULL) continue;
      abandoned_with_traffic_ = true;
      if (transfer.receiving) MPI_Cancel(&request);
      if (!end(request, deadline)) MPI_Request_free(&request);
    }
    transfer.requests.clear();
  }
}

int MpiTransport::node_index(int rank) const {
  for (int i = 0; i < node_->size(); ++i)
    if (node_->board().member(i).rank == rank) return i;
  return -1;
}

void MpiTransport::expire(int peer) {
  const int index = node_index(peer);
  if (index >= 0) node_->board().expire({index});
  throw Timeout(concat("rank ", rank(), " on host ", members_[size_t(rank())].host,
                       " passed its timeout waiting for rank ", peer, " on host ", members_[size_t(peer)].host, "; ",
                       node_->board().doing(node_->rank())));
}

// What MPI's error means: the peer's end, or something else.
void MpiTransport::failed(int peer, int code, const char* what) {
  const int index = node_index(peer);
  // On this node the process itself says who is gone. Its memory goes a little before, and MPI may have been reading
  // it; and ULFM may name a rank that only left because another had died.
  for (int i = 0; index >= 0 && i < kDyingMilliseconds; ++i) {
    node_->board().check([] { return false; }, {index});
    const timespec rest{0, 1'000'000};
    nanosleep(&rest, nullptr);
    if (peer_lost(code)) break;
  }
  check_notice();
  if (!peer_lost(code)) check_mpi(code, what);
  const Member& member = members_[size_t(peer)];
  throw PeerFailed(concat("rank ", peer, " on host ", member.host, " is gone: MPI reports that it failed; ",
                          node_->board().doing(node_->rank())),
                   peer, member.host, node_->board().doing(node_->rank()));
}

}  // namespace pycoll
