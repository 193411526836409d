// Point-to-point operations: a header with the sender's signature, then the payload, on a lane of their own. A receive
// takes the first message of its tag from its source; messages that nobody has asked for yet are put aside.
#pragma once
#include <atomic>
#include <deque>
#include <exception>
#include <list>
#include <memory>
#include <vector>

#include "comm/call.h"
#include "core/deadline.h"
#include "core/work.h"
#include "transport/transport.h"

namespace pycoll {

// What goes before every payload. See docs/wire.md.
struct MessageHeader {
  uint32_t magic = 0x50434f4c;  // "PCOL"
  uint32_t version = 1;
  Signature signature;
};
static_assert(sizeof(MessageHeader) == 32);

class PointToPoint {
 public:
  explicit PointToPoint(Transport& transport) : transport_(transport), inboxes_(size_t(transport.size())) {}

  // Starts a send, recv or sendrecv. `work` is finished by poll(); null: the caller completes it with finish().
  void start(const Call& call, Deadline deadline, std::shared_ptr<Work> work);
  // Waits for the last one started, which had no Work; raises its error. The transport calls poll() meanwhile.
  void finish();
  // Moves operations on; those that are done finish their Work. True if some are still under way. Raises what is wrong
  // with the group: a peer gone, a deadline passed.
  bool poll();
  // Finishes all with this error.
  void fail(const std::exception_ptr& error);
  // How many operations with a Work poll() has finished, well or with an error of their own. From any thread.
  uint64_t finished() const { return finished_.load(std::memory_order_relaxed); }
  uint64_t refused() const { return refused_.load(std::memory_order_relaxed); }

 private:
  // One that has no place in a receive's buffer: it came before the receive, or does not fit it.
  struct Message {
    Signature signature;
    std::vector<std::byte> payload;
    Transport::Ticket ticket;  // of the payload, until it is there
    bool complete;
  };
  // Payloads follow their headers in order, so one header is received at a time.
  struct Inbox {
    MessageHeader header;
    Transport::Ticket ticket = 0;
    bool listening = false;
    std::list<Message> aside;  // in the order sent
  };
  struct Direction {
    enum class State { absent, queued, header, payload, aside, done } state = State::absent;
    Buffer buffer;  // sends only read it
    int peer = 0;
    MessageHeader header;           // of a send
    Transport::Ticket ticket = 0;   // of the state that it is in
    Transport::Ticket payload = 0;  // sends post both at once
    uint64_t tag = 0;
    std::list<Message> message;  // of state aside
  };
  struct Operation {
    Direction sending, receiving;
    Deadline deadline;
    std::shared_ptr<Work> work;
    Kind kind;
    std::exception_ptr error;
  };

  void look_around();
  bool advance(Operation& operation);
  bool advance_send(Direction& d);
  bool advance_recv(Operation& operation);
  void listen(int peer);
  Operation* first_wanting(int peer, uint64_t tag);
  bool listens(int peer) const;
  Message take(int peer, const Signature& sent);
  void adopt(Operation& operation);
  void begin_payload(Operation& operation, int peer, const Signature& sent);
  void compare(Operation& operation, int peer, const Signature& sent);

  Transport& transport_;
  std::vector<Inbox> inboxes_;
  std::deque<std::unique_ptr<Operation>> operations_;
  Deadline::Clock::time_point looked_{};
  std::atomic<uint64_t> finished_{0}, refused_{0};
};

}  // namespace pycoll
