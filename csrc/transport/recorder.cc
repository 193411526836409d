#include "transport/recorder.h"

#include <algorithm>
#include <map>
#include <unordered_map>

#include "core/error.h"

namespace pycoll {
namespace {

// Runs the traces of all ranks against each other. A receive completes when its send has been posted, and a send when
// its receive has been: no transport buffers less, so what ends here ends everywhere.
class Replay {
 public:
  explicit Replay(const std::vector<std::vector<Event>>& traces) : traces_(traces), ranks_(traces.size()) {
    for (bool moved = true; moved;) {
      moved = pass_barrier();
      for (size_t rank = 0; rank < ranks_.size(); ++rank) moved |= advance(int(rank));
    }
    check_finished();
  }
  std::vector<Message> messages() { return std::move(messages_); }

 private:
  struct Link {
    std::vector<size_t> sent;      // index into messages_
    std::vector<size_t> received;  // bytes that the receive asked for
  };
  struct Half {  // one end of a message
    bool is_send;
    std::pair<int, int> link;
    size_t order;  // on the link
  };
  struct Rank {
    size_t next = 0;  // event
    int round = 0;    // of the last message waited for
    std::unordered_map<size_t, Half> open;
  };

  bool advance(int rank) {
    Rank& self = ranks_[size_t(rank)];
    const auto& trace = traces_[size_t(rank)];
    const size_t before = self.next;
    for (; self.next < trace.size(); ++self.next) {
      const Event& event = trace[self.next];
      if (event.kind == Event::Kind::post_send) {
        Link& link = links_[{rank, event.peer}];
        const int busy = link.sent.empty() ? 0 : messages_[link.sent.back()].round;
        self.open[event.ticket] = {true, {rank, event.peer}, link.sent.size()};
        link.sent.push_back(messages_.size());
        messages_.push_back({rank, event.peer, event.bytes, std::max(self.round, busy) + 1});
        last_round_ = std::max(last_round_, messages_.back().round);
      } else if (event.kind == Event::Kind::post_recv) {
        Link& link = links_[{event.peer, rank}];
        self.open[event.ticket] = {false, {event.peer, rank}, link.received.size()};
        link.received.push_back(event.bytes);
      } else if (event.kind == Event::Kind::wait) {
        if (!wait(self, rank, event.ticket)) break;
      } else if (event.kind == Event::Kind::barrier) {
        break;
      }
    }
    return self.next > before;
  }

  // False if the other end has not been posted yet.
  bool wait(Rank& self, int rank, size_t ticket) {
    const auto found = self.open.find(ticket);
    PYCOLL_CHECK_AS(TransportError, found != self.open.end(), "recorder: rank ", rank, " waits twice for ticket ",
                    ticket);
    const Half half = found->second;
    const Link& link = links_[half.link];
    if (half.order >= (half.is_send ? link.received.size() : link.sent.size())) return false;
    const Message& message = messages_[link.sent[half.order]];
    const size_t wanted = link.received[half.order];
    PYCOLL_CHECK_AS(TransportError, message.bytes == wanted, "recorder: message ", half.order, " from rank ",
                    message.from, " to rank ", message.to, " has ", message.bytes, " bytes, its receive wants ",
                    wanted);
    self.round = std::max(self.round, message.round);
    self.open.erase(found);
    return true;
  }

  bool pass_barrier() {
    for (size_t rank = 0; rank < ranks_.size(); ++rank) {
      const auto& trace = traces_[rank];
      const size_t next = ranks_[rank].next;
      if (next == trace.size() || trace[next].kind != Event::Kind::barrier) return false;
    }
    for (Rank& rank : ranks_) {
      ++rank.next;
      rank.round = last_round_;
    }
    return !ranks_.empty();
  }

  void check_finished() const {
    for (size_t rank = 0; rank < ranks_.size(); ++rank) {
      const Rank& self = ranks_[rank];
      if (self.next < traces_[rank].size()) {
        const Event& event = traces_[rank][self.next];
        if (event.kind == Event::Kind::barrier)
          throw TransportError(concat("recorder: deadlock: rank ", rank, " is at a barrier that others never reach"));
        const Half& half = self.open.at(event.ticket);
        throw TransportError(concat("recorder: deadlock: rank ", rank, " waits for message ", half.order, " from rank ",
                                    half.link.first, " to rank ", half.link.second, ", which the other never posts"));
      }
      PYCOLL_CHECK_AS(TransportError, self.open.empty(), "recorder: rank ", rank, " never waits for ", self.open.size(),
                      " of its messages");
    }
  }

  const std::vector<std::vector<Event>>& traces_;
  std::vector<Rank> ranks_;
  std::map<std::pair<int, int>, Link> links_;
  std::vector<Message> messages_;
  int last_round_ = 0;
};

size_t sum_of(const std::vector<Event>& trace, Event::Kind kind) {
  size_t bytes = 0;
  for (const Event& event : trace)
    if (event.kind == kind) bytes += event.bytes;
  return bytes;
}

}  // namespace

std::vector<Message> Recording::messages() const {
  return Replay(traces_).messages();
}

int Recording::rounds() const {
  int last = 0;
  for (const Message& message : messages()) last = std::max(last, message.round);
  return last;
}

size_t Recording::bytes_sent(int rank) const {
  return sum_of(traces_[size_t(rank)], Event::Kind::post_send);
}
size_t Recording::bytes_accessed(int rank) const {
  return sum_of(traces_[size_t(rank)], Event::Kind::access);
}

int Recording::barriers() const {
  if (traces_.empty()) return 0;
  return int(std::count_if(traces_[0].begin(), traces_[0].end(),
                           [](const Event& event) { return event.kind == Event::Kind::barrier; }));
}

// Stages hold nothing that matters, so all peers have the same one.
class Recorder::Common final : public SharedMemory {
 public:
  Common(std::vector<Event>& trace, int rank, size_t stage_bytes)
      : trace_(trace), rank_(rank), stages_(4 * stage_bytes), stage_bytes_(stage_bytes) {}
  size_t claim(size_t) override { return (claims_++ % 2) * stage_bytes_; }
  std::byte* stage(int peer, size_t place) override {
    return stages_.data() + (peer == rank_ ? 0 : 2 * stage_bytes_) + place;
  }
  size_t stage_bytes() const override { return stage_bytes_; }
  void barrier(Deadline) override { trace_.push_back({Event::Kind::barrier, rank_, 0, 0}); }
  void note_access(int peer, size_t bytes) override { trace_.push_back({Event::Kind::access, peer, bytes, 0}); }

 private:
  std::vector<Event>& trace_;
  int rank_;
  size_t claims_ = 0;
  std::vector<std::byte> stages_;
  size_t stage_bytes_;
};

Recorder::Recorder(Recording& recording, int rank, int size, Memory memory, size_t stage_bytes)
    : Transport(rank, size), trace_(recording.trace(rank)) {
  if (memory == Memory::common) common_ = std::make_unique<Common>(trace_, rank, stage_bytes);
}
Recorder::~Recorder() = default;

Transport::Ticket Recorder::post_send(int peer, ConstBytes bytes, Lane) {
  trace_.push_back({Event::Kind::post_send, peer, bytes.size(), tickets_});
  return tickets_++;
}

Transport::Ticket Recorder::post_recv(int peer, Bytes bytes, Lane) {
  trace_.push_back({Event::Kind::post_recv, peer, bytes.size(), tickets_});
  return tickets_++;
}

void Recorder::wait(Ticket ticket, Deadline) {
  trace_.push_back({Event::Kind::wait, 0, 0, ticket});
}

bool Recorder::test(Ticket ticket) {
  wait(ticket, Deadline::after(0));
  return true;
}

SharedMemory* Recorder::shared() {
  return common_.get();
}

}  // namespace pycoll
