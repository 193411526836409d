#include "comm/p2p.h"

#include <algorithm>

namespace pycoll {
namespace {

Bytes bytes_of(MessageHeader& header) {
  return {reinterpret_cast<std::byte*>(&header), sizeof header};
}

}  // namespace

void PointToPoint::start(const Call& call, Deadline deadline, std::shared_ptr<Work> work) {
  auto operation = std::unique_ptr<Operation>(new Operation{{}, {}, deadline, std::move(work), call.kind, nullptr});
  if (call.kind == Kind::recv || call.kind == Kind::sendrecv) {
    Direction& d = operation->receiving;
    d.buffer = call.out;
    d.peer = call.kind == Kind::recv ? call.root : call.source;
    d.state = Direction::State::queued;
  }
  if (call.kind == Kind::send || call.kind == Kind::sendrecv) {
    Direction& d = operation->sending;
    d.buffer = {const_cast<std::byte*>(call.in.data), call.in.count, call.in.dtype};
    d.peer = call.root;
    d.header.signature = {call.kind, call.in.dtype, ReduceOp::sum, Algo::automatic, call.root, call.in.count, 0};
    d.ticket = transport_.post_send(d.peer, bytes_of(d.header), Lane::p2p);
    if (d.buffer.count) d.payload = transport_.post_send(d.peer, d.buffer.span(), Lane::p2p);
    d.state = Direction::State::header;
    transport_.account(d.buffer.bytes() + sizeof d.header);
  }
  operations_.push_back(std::move(operation));
}

// No operation before this one still receives from the same peer. The last one, of finish(), is not among operations_.
bool PointToPoint::first_from_peer(const Operation& operation) const {
  for (const auto& earlier : operations_) {
    if (earlier.get() == &operation) return true;
    const Direction& d = earlier->receiving;
    if (d.peer == operation.receiving.peer && d.state != Direction::State::done && d.state != Direction::State::absent)
      return false;
  }
  return true;
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

// Looks at a header that has come: receives the payload where it fits, elsewhere where it does not.
void PointToPoint::accept(Operation& operation) {
  using State = Direction::State;
  Direction& d = operation.receiving;
  const Signature& sent = d.header.signature;
  PYCOLL_CHECK_AS(TransportError, d.header.magic == MessageHeader{}.magic && d.header.version == 1,
                  name_of(operation.kind), ": rank ", transport_.rank(), " got a damaged header from rank ", d.peer);
  d.state = State::done;
  if (sent.count == d.buffer.count && sent.dtype == d.buffer.dtype) {
    if (d.buffer.count) {
      d.ticket = transport_.post_recv(d.peer, d.buffer.span(), Lane::p2p);
      d.state = State::payload;
    }
    return;
  }
  operation.error = std::make_exception_ptr(
      MismatchError(concat("rank ", transport_.rank(), " called recv ", name_of(d.buffer.dtype), "[", d.buffer.count,
                           "] from rank ", d.peer, "; rank ", d.peer, " called ", describe(sent))));
  if (sent.count) {
    d.drain.resize(sent.count * size_of(sent.dtype));
    d.ticket = transport_.post_recv(d.peer, d.drain, Lane::p2p);
    d.state = State::draining;
  }
}

bool PointToPoint::advance_recv(Operation& operation) {
  using State = Direction::State;
  Direction& d = operation.receiving;
  if (d.state == State::queued && first_from_peer(operation)) {
    d.ticket = transport_.post_recv(d.peer, bytes_of(d.header), Lane::p2p);
    d.state = State::header;
  }
  if (d.state == State::header && transport_.test(d.ticket)) accept(operation);
  if ((d.state == State::payload || d.state == State::draining) && transport_.test(d.ticket)) d.state = State::done;
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
    for (const Direction* d : {&operation->receiving, &operation->sending}) {
      if (d->state == Direction::State::absent || d->state == Direction::State::done) continue;
      transport_.check(d->peer, [&] { return advance(*operation); });
      PYCOLL_CHECK_AS(Timeout, !operation->deadline.passed(), name_of(operation->kind), ": rank ", transport_.rank(),
                      " passed its deadline waiting for rank ", d->peer);
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
  const std::unique_ptr<Operation> operation = std::move(operations_.back());
  operations_.pop_back();
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
