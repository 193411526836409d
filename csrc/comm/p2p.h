// Point-to-point operations: a header with the sender's signature, then the payload, on a lane of their own.
#pragma once
#include <deque>
#include <exception>
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
  explicit PointToPoint(Transport& transport) : transport_(transport) {}

  // Starts a send, recv or sendrecv. `work` is finished by poll(); null: the caller completes it with finish().
  void start(const Call& call, Deadline deadline, std::shared_ptr<Work> work);
  // Waits for the last one started, which had no Work; raises its error. The transport calls poll() meanwhile.
  void finish();
  // Moves operations on; those that are done finish their Work. True if some are still under way. Raises what is wrong
  // with the group: a peer gone, a deadline passed.
  bool poll();
  // Finishes all with this error.
  void fail(const std::exception_ptr& error);

 private:
  struct Direction {
    Buffer buffer;  // sends only read it
    int peer = 0;
    MessageHeader header;
    Transport::Ticket ticket = 0;   // of the state that it is in
    Transport::Ticket payload = 0;  // sends post both at once
    // A receive is queued while an earlier one from the same peer is not done: its message comes after that one's.
    enum class State { absent, queued, header, payload, draining, done } state = State::absent;
    std::vector<std::byte> drain;
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
  bool first_from_peer(const Operation& operation) const;
  void accept(Operation& operation);

  Transport& transport_;
  std::deque<std::unique_ptr<Operation>> operations_;
  Deadline::Clock::time_point looked_{};
};

}  // namespace pycoll
