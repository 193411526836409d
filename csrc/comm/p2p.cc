#include "comm/p2p.h"

#include <algorithm>
#include <cstring>

namespace pycoll {
namespace {

Bytes bytes_of(MessageHeader& header) {
  return {reinterpret_cast<std::byte*>(&header), sizeof header};
}

}  // namespace

void PointToPoint::start(const Call& call, Deadline deadline, std::shared_ptr<Work> work) {
  operations_.push_back(
      std::unique_ptr<Operation>(new Operation{{}, {}, deadline, std::move(work), call.kind, nullptr}));
  Operation& operation = *operations_.back();
  if (call.kind == Kind::recv || call.kind == Kind::sendrecv) {
    Direction& d = operation.receiving;
    d.buffer = call.out;
    d.peer = call.kind == Kind::recv ? call.root : call.source;
    d.tag = call.tag;
    d.state = Direction::State::queued;
    adopt(operation);
  }
  if (call.kind == Kind::send || call.kind == Kind::sendrecv) {
    Direction& d = operation.sending;
    d.buffer = {const_cast<std::byte*>(call.in.data), call.in.count, call.in.dtype};
    d.peer = call.root;
    d.header.signature = {call.kind, call.in.dtype, ReduceOp::sum, Algo::automatic, call.root, call.in.count, call.tag};
    d.ticket = transport_.post_send(d.peer, bytes_of(d.header), Lane::p2p);
    if (d.buffer.count) d.payload = transport_.post_send(d.peer, d.buffer.span(), Lane::p2p);
    d.state = Direction::State::header;
    transport_.account(d.buffer.bytes() + sizeof d.header);
  }
}

bool PointToPoint::advance_send(Direction& d) {
  using State = Direction::State;
  if (d.state == State::header && transport_.test(d.ticket)) {
    d.state = State::done;
    if (d.buffer.count) {
      d.ticket = d.payload;
      d.state = State::payload;
    }
  }
  if (d.state == State::payload && transport_.test(d.ticket)) d.state = State::done;
  return d.state == State::done || d.state == State::absent;
}

// The earliest receive that has no message yet and takes this one.
PointToPoint::Operation* PointToPoint::first_wanting(int peer, uint64_t tag) {
  for (const auto& operation : operations_) {
    const Direction& d = operation->receiving;
    if (d.state == Direction::State::queued && d.tag == tag && (d.peer == peer || d.peer == kAnySource))
      return operation.get();
  }
  return nullptr;
}

bool PointToPoint::listens(int peer) const {
  return std::any_of(operations_.begin(), operations_.end(), [&](const auto& operation) {
    const Direction& d = operation->receiving;
    return d.state == Direction::State::queued && (d.peer == peer || d.peer == kAnySource);
  });
}

// Takes the headers that have come from `peer`, as long as a receive waits for one.
void PointToPoint::listen(int peer) {
  Inbox& inbox = inboxes_[size_t(peer)];
  while (listens(peer)) {
    if (!inbox.listening) inbox.ticket = transport_.post_recv(peer, bytes_of(inbox.header), Lane::p2p);
    inbox.listening = true;
    if (!transport_.test(inbox.ticket)) return;
    inbox.listening = false;
    PYCOLL_CHECK_AS(TransportError, inbox.header.magic == MessageHeader{}.magic && inbox.header.version == 1,
                    "recv: rank ", transport_.rank(), " got a damaged header from rank ", peer);
    const Signature& sent = inbox.header.signature;
    if (Operation* const operation = first_wanting(peer, sent.detail))
      begin_payload(*operation, peer, sent);
    else
      inbox.aside.push_back(take(peer, sent));
  }
}

// A message whose header has come, received beside every buffer.
PointToPoint::Message PointToPoint::take(int peer, const Signature& sent) {
  Message message{sent, std::vector<std::byte>(sent.count * size_of(sent.dtype)), 0, sent.count == 0};
  if (sent.count) message.ticket = transport_.post_recv(peer, message.payload, Lane::p2p);
  return message;
}

// Where the header has just come: the payload follows, into the buffer if it fits.
void PointToPoint::begin_payload(Operation& operation, int peer, const Signature& sent) {
  Direction& d = operation.receiving;
  compare(operation, peer, sent);
  if (operation.error) {
    d.message.push_back(take(peer, sent));
    d.state = Direction::State::aside;
  } else if (d.buffer.count) {
    d.ticket = transport_.post_recv(peer, d.buffer.span(), Lane::p2p);
    d.state = Direction::State::payload;
  } else {
    d.state = Direction::State::done;
  }
}

// Gives a new receive the message that was put aside for it, if there is one.
void PointToPoint::adopt(Operation& operation) {
  Direction& d = operation.receiving;
  for (int peer = 0; peer < transport_.size(); ++peer) {
    if (d.peer != peer && d.peer != kAnySource) continue;
    std::list<Message>& aside = inboxes_[size_t(peer)].aside;
    const auto found =
        std::find_if(aside.begin(), aside.end(), [&](const Message& m) { return m.signature.detail == d.tag; });
    if (found == aside.end()) continue;
    d.message.splice(d.message.end(), aside, found);
    d.state = Direction::State::aside;
    compare(operation, peer, d.message.front().signature);
    return;
  }
}

// From here on the receive has one source. A message that does not fit is its error, and is not written to the buffer.
void PointToPoint::compare(Operation& operation, int peer, const Signature& sent) {
  Direction& d = operation.receiving;
  d.peer = peer;
  if (operation.work) operation.work->set_source(peer);
  if (sent.count == d.buffer.count && sent.dtype == d.buffer.dtype) return;
  operation.error = std::make_exception_ptr(
      MismatchError(concat("rank ", transport_.rank(), " called recv ", name_of(d.buffer.dtype), "[", d.buffer.count,
                           "] from rank ", peer, "; rank ", peer, " called ", describe(sent))));
}

bool PointToPoint::advance_recv(Operation& operation) {
  using State = Direction::State;
  Direction& d = operation.receiving;
  if (d.state == State::queued)
    for (int peer = 0; peer < transport_.size(); ++peer)
      if (peer != transport_.rank() && (d.peer == peer || d.peer == kAnySource)) listen(peer);
  if (d.state == State::payload && transport_.test(d.ticket)) d.state = State::done;
  if (d.state == State::aside) {
    Message& message = d.message.front();
    if (!message.complete && !transport_.test(message.ticket)) return false;
    if (!operation.error && d.buffer.count) std::memcpy(d.buffer.data, message.payload.data(), message.payload.size());
    d.message.clear();
    d.state = State::done;
  }
  return d.state == State::done || d.state == State::absent;
}

bool PointToPoint::advance(Operation& operation) {
  const bool received = advance_recv(operation);
  return advance_send(operation.sending) && received;
}

// Now and then: who is gone, which deadline has passed.
void PointToPoint::look_around() {
  const auto now = Deadline::Clock::now();
  if (now - looked_ < std::chrono::milliseconds(20)) return;
  looked_ = now;
  for (const auto& operation : operations_) {
    if (!operation->work) continue;  // the transport looks around for whoever waits
    for (const Direction* d : {&operation->receiving, &operation->sending}) {
      if (d->state == Direction::State::absent || d->state == Direction::State::done) continue;
      // Of several that may send, one that has left is no failure.
      const bool other = d->peer == kAnySource && transport_.size() == 2;
      transport_.check(other ? 1 - transport_.rank() : d->peer, [&] { return advance(*operation); });
      PYCOLL_CHECK_AS(Timeout, !operation->deadline.passed(), name_of(operation->kind), ": rank ", transport_.rank(),
                      " passed its timeout waiting for ",
                      d->peer == kAnySource ? std::string("any rank") : concat("rank ", d->peer));
    }
  }
}

bool PointToPoint::poll() {
  if (operations_.empty()) return false;
  for (auto it = operations_.begin(); it != operations_.end();) {
    Operation& operation = **it;
    if (!operation.work) {
      ++it;
    } else if (advance(operation)) {
      (operation.error ? refused_ : finished_).fetch_add(1, std::memory_order_relaxed);
      operation.work->finish(operation.error);
      it = operations_.erase(it);
    } else {
      ++it;
    }
  }
  look_around();
  return !operations_.empty();
}

void PointToPoint::finish() {
  Operation* const operation = operations_.back().get();
  // It stays among the others, which may be done before it, for messages to find it.
  struct Removal {
    std::deque<std::unique_ptr<Operation>>& operations;
    Operation* const own;
    ~Removal() {
      const auto found =
          std::find_if(operations.begin(), operations.end(), [&](const auto& each) { return each.get() == own; });
      if (found != operations.end()) operations.erase(found);
    }
  } const removal{operations_, operation};
  while (!advance(*operation)) {
    const auto under_way = [](const Direction& d) {
      return d.state != Direction::State::done && d.state != Direction::State::absent;
    };
    const Direction& d = under_way(operation->receiving) ? operation->receiving : operation->sending;
    // Both directions move while either is waited for.
    transport_.wait_until([&] { return advance(*operation) || !under_way(d); }, d.peer, operation->deadline);
  }
  if (operation->error) std::rethrow_exception(operation->error);
}

void PointToPoint::fail(const std::exception_ptr& error) {
  for (const auto& operation : operations_)
    if (operation->work) operation->work->finish(error);
  operations_.clear();
}

}  // namespace pycoll
