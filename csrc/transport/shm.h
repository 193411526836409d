// Transport through memory that the ranks of a node share; with Segment::local(), between threads of one process.
//
// The segment holds, in this order: the board; two arrival cells a rank; two stages a rank; then for every ordered pair
// of ranks and each lane a channel of kDepth slots. Pages never touched cost nothing.
#pragma once
#include <array>
#include <deque>
#include <vector>

#include "core/signature.h"
#include "transport/board.h"
#include "transport/segment.h"
#include "transport/transport.h"

namespace pycoll {

namespace shm {

// What a rank shows the others when it enters an operation: one cache line, flag and small payload together.
struct alignas(kLine) Arrival {
  std::atomic<uint32_t> tick;
  uint32_t reads_private;  // 1 if this rank has found that it can read all its peers' memory
  Signature signature;
  std::byte payload[32];
};
static_assert(sizeof(Arrival) == kLine);

inline constexpr int kDepth = 4;
inline constexpr size_t kStageBytes = 256 << 10;

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
  void announce(const Failure& failure) override { board_.announce(failure); }

  SharedMemory* shared() override { return this; }
  std::byte* stage(int peer, int parity) override { return stages_ + size_t(2 * peer + parity) * shm::kStageBytes; }
  size_t stage_bytes() const override { return shm::kStageBytes; }
  int parity() const override { return int((tick_ + 1) & 1); }
  void barrier(Deadline deadline) override;
  void note_access(int, size_t bytes) override { account(bytes); }
  bool reads_private() const override { return all_read_private_; }
  void read(int peer, Bytes to, uint64_t from) override;

  // The cell to fill before the next barrier (`parity()`), and to read after it.
  shm::Arrival& arrival(int peer, int parity) { return arrivals_[2 * peer + parity]; }
  Board& board() { return board_; }

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
  bool try_read(int peer, Bytes to, uint64_t from) const;
  Ticket post(Queue& queue, std::byte* data, size_t bytes);
  void progress();
  bool push(Queue& queue);
  bool pull(Queue& queue);
  shm::Channel& channel(int from, int to, Lane lane);
  std::byte* slot(int from, int to, Lane lane, uint32_t index);

  std::shared_ptr<Segment> segment_;
  Board board_;
  shm::Arrival* arrivals_;
  std::byte* stages_;
  std::byte* channels_;
  size_t slot_bytes_, channel_bytes_;
  uint32_t tick_ = 0;
  uint64_t probe_value_;
  bool probed_ = false, reads_private_ = false, all_read_private_ = false;
  std::deque<Transfer> transfers_;
  std::vector<Ticket> free_;
  std::vector<Queue> queues_;   // [peer][lane][sending]
  std::vector<size_t> active_;  // indices of queues with tickets
};

}  // namespace pycoll
