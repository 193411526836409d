// Transport through memory that the ranks of a node share; with Segment::local(), between threads of one process.
//
// The segment holds, in this order: the board; two arrival cells a rank; the bells of probes; a stage a rank; then for
// every ordered pair of ranks and each lane a channel of kDepth slots. Pages never touched cost nothing.
#pragma once
#include <array>
#include <deque>
#include <vector>

#include "core/signature.h"
#include "transport/board.h"
#include "transport/probe.h"
#include "transport/segment.h"
#include "transport/transport.h"

namespace pycoll {

namespace shm {

// What a rank shows the others when it enters an operation: one cache line, flag and small payload together.
struct alignas(kLine) Arrival {
  std::atomic<uint32_t> tick;
  uint8_t can;   // what this rank has found
  uint8_t plan;  // of rank 0: what all go by from this meeting on
  uint16_t unused;
  Signature signature;
  std::byte payload[32];
};
static_assert(sizeof(Arrival) == kLine);

inline constexpr int kDepth = 4;
// A stage is a ring: what is written next was read so long ago that no second-level cache holds it. Writing lines that
// the reader still has takes twice as long.
inline constexpr size_t kStageBytes = 2 << 20;
// Of three claims in turn (one of them a probe's, which has no barrier of its own) none reaches into another.
inline constexpr size_t kClaimMost = kStageBytes / 4;

inline constexpr size_t kProbedBytes = 32 << 10;  // in each way that a probe tries

// Bits of Arrival::can.
inline constexpr uint8_t kReadsPrivate = 1;  // it can read all its peers' memory
inline constexpr uint8_t kIsReached = 2;     // heavy fences reach it

// Bits of Arrival::plan.
inline constexpr uint8_t kProbe = 1;       // all probe now
inline constexpr uint8_t kStreams = 2;     // into stages by streaming stores
inline constexpr uint8_t kSingleCopy = 4;  // large private arrays are read where they are

// Flags of a probe, a rank's two: from rank 0 to it, and back.
struct Bell {
  alignas(kLine) std::atomic<uint32_t> there;
  alignas(kLine) std::atomic<uint32_t> back;
  std::atomic<bool> farthest;  // written by rank 0: this one is
};

// Slots from one rank to another. A message fills one slot or more; `filled` and `emptied` count slots.
struct Channel {
  alignas(kLine) std::atomic<uint32_t> filled;   // written by the sender
  alignas(kLine) std::atomic<uint32_t> emptied;  // written by the receiver
  alignas(kLine) uint32_t bytes[kDepth];         // in each slot
};

}  // namespace shm

class ShmTransport final : public Transport, public SharedMemory {
 public:
  static size_t segment_bytes(int size);
  // The segment is zeroed and segment_bytes(size) long; members are in rank order; `cores` is what all of them run on.
  ShmTransport(std::shared_ptr<Segment> segment, int rank, std::vector<Member> members, int cores);

  std::string name() const override { return "shm"; }
  Ticket post_send(int peer, ConstBytes bytes, Lane lane) override;
  Ticket post_recv(int peer, Bytes bytes, Lane lane) override;
  void wait(Ticket ticket, Deadline deadline) override;
  bool test(Ticket ticket) override;
  void wait_until(const std::function<bool()>& ready, int peer, Deadline deadline) override;
  void check(int peer, const std::function<bool()>& ready) override { board_.check(ready, {peer}); }
  void abandon() override;
  Bell* bell() override { return &board_; }
  void announce(const Failure& failure) override { board_.announce(failure); }

  SharedMemory* shared() override { return this; }
  size_t claim(size_t bytes) override;
  std::byte* stage(int peer, size_t place) override { return stages_ + size_t(peer) * shm::kStageBytes + place; }
  size_t stage_bytes() const override { return shm::kClaimMost; }
  // After ranks have claimed differently, and before any claims again.
  void reset_claims() { claimed_ = 0; }
  Stores staged_stores() const override { return plan_ & shm::kStreams ? Stores::streaming : Stores::ordinary; }
  void barrier(Deadline deadline) override;
  void note_access(int, size_t bytes) override { account(bytes); }
  bool single_copy() const override { return all_read_private_ && (plan_ & shm::kSingleCopy); }
  void read(int peer, Bytes to, uint64_t from) override;

  // The cells to fill before the next barrier are those of next_parity(), and are to be read after it.
  int next_parity() const { return int((tick_ + 1) & 1); }
  shm::Arrival& arrival(int peer, int parity) { return arrivals_[2 * peer + parity]; }
  Board& board() { return board_; }

  // Has rank 0 ask for a probe at the next barrier, if one is due.
  void ask_for_probe();
  // After a barrier: probes if rank 0 asked for it. All ranks call this at the same barriers.
  void probe_if_asked(Deadline deadline);
  // Of rank 0; on others, what rank 0 found is known by its choices alone.
  Findings findings() const { return findings_; }

 private:
  struct Transfer {
    std::byte* data;
    size_t bytes, done;
    int peer;
    bool complete;
  };
  struct Queue {
    std::deque<Ticket> tickets;
    int peer;
    Lane lane;
    bool sending;
  };

  void probe_reading();
  void probe(Deadline deadline);
  void settle_choices();
  void meet(int peer, Deadline deadline);
  float flag_ns(int peer, Deadline deadline);
  double exchange(int peer, int way, size_t place, Deadline deadline);
  bool try_read(int peer, Bytes to, uint64_t from) const;
  Ticket post(Queue& queue, std::byte* data, size_t bytes);
  void progress();
  void ring(const Queue& queue);
  bool push(Queue& queue);
  bool pull(Queue& queue);
  shm::Channel& channel(int from, int to, Lane lane);
  std::byte* slot(int from, int to, Lane lane, uint32_t index);

  std::shared_ptr<Segment> segment_;
  Board board_;
  shm::Arrival* arrivals_;
  shm::Bell* bells_;
  std::byte* stages_;
  std::byte* channels_;
  size_t slot_bytes_, channel_bytes_;
  uint32_t tick_ = 0;
  size_t claimed_ = 0;
  const bool crowded_;  // more ranks than cores
  uint8_t plan_ = 0;
  bool asking_ = false;
  int forced_stores_ = -1, forced_single_copy_ = -1;  // by the user: 0 or 1
  Findings findings_;
  double next_probe_ = 0;               // seconds of the monotonic clock
  std::vector<uint64_t> probed_array_;  // private memory that peers read to see if they can; begins with its address
  bool probed_ = false, reads_private_ = false, all_read_private_ = false;
  std::deque<Transfer> transfers_;
  std::vector<Ticket> free_;
  std::vector<Queue> queues_;   // [peer][lane][sending]
  std::vector<size_t> active_;  // indices of queues with tickets
};

}  // namespace pycoll
