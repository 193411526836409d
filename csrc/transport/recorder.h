// A transport that sends nothing and writes down who would send what to whom.
#pragma once
#include <mutex>
#include <vector>

#include "transport/transport.h"

namespace pycoll {

// One rank's trace, in program order.
struct Event {
  enum class Kind : uint8_t { post_send, post_recv, wait, barrier, access };
  Kind kind;
  int peer;       // post_send, post_recv, access
  size_t bytes;   // post_send, post_recv, access
  size_t ticket;  // post_send, post_recv: its own; wait: the one waited for
};

struct Message {
  int from, to;
  size_t bytes;
  int round;  // 1-based: see Recording::messages
};

// The traces of all ranks of one run.
class Recording {
 public:
  explicit Recording(int size) : traces_(size_t(size)) {}
  std::vector<Event>& trace(int rank) { return traces_[size_t(rank)]; }
  // Each message with its round. A message leaves one round after the last message its sender had waited for before it
  // was posted, and a link (from one rank to another) carries one message a round. Zero-byte messages are included (a
  // barrier is made of them). A barrier of shared memory ends a round for all ranks. No transport buffers less: a send
  // completes when its receive has been posted. Throws TransportError if a wait never ends (a deadlock), if the two
  // ends of a message disagree on its size, and if a ticket is never waited for. Lanes are not told apart.
  std::vector<Message> messages() const;
  int rounds() const;                     // of messages(), 0 if none
  size_t bytes_sent(int rank) const;      // by post_send
  size_t bytes_accessed(int rank) const;  // of peers' memory in place
  int barriers() const;                   // of shared memory, a rank

 private:
  std::vector<std::vector<Event>> traces_;
};

// Rank `rank` of a recorded run. `shared` gives a transport with (pretended) shared memory.
class Recorder final : public Transport {
 public:
  enum class Memory { separate, common };
  Recorder(Recording& recording, int rank, int size, Memory memory, size_t stage_bytes = 256 << 10);
  ~Recorder() override;
  std::string name() const override { return "recorder"; }
  Ticket post_send(int peer, ConstBytes bytes, Lane lane) override;
  Ticket post_recv(int peer, Bytes bytes, Lane lane) override;
  void wait(Ticket ticket, Deadline deadline) override;
  bool test(Ticket ticket) override;
  void abandon() override {}
  SharedMemory* shared() override;
  Pipeline pipeline() const override { return pipeline_; }
  void set_pipeline(Pipeline pipeline) { pipeline_ = pipeline; }

 private:
  class Common;
  std::vector<Event>& trace_;
  size_t tickets_ = 0;
  Pipeline pipeline_ = Transport::pipeline();
  std::unique_ptr<Common> common_;
};

}  // namespace pycoll
