// What moves bytes between ranks. Knows no element types.
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/bytes.h"
#include "core/copy.h"
#include "core/deadline.h"
#include "core/failure.h"

namespace pycoll {

class Bell;
class SharedMemory;

// Collective steps and the users' own send/recv travel apart: a send that waits for its receive cannot hold up an
// allreduce.
enum class Lane : uint8_t { collective, p2p };

// How a long array is best cut on its way: segments of at most `bytes` bytes, `depth` of them under way each way.
struct Pipeline {
  size_t bytes, depth;
};

// Messages between two ranks arrive in the order posted, per lane; sender and receiver agree on the byte count.
class Transport {
 public:
  using Ticket = uint64_t;

  Transport(int rank, int size) : rank_(rank), size_(size) {}
  Transport(const Transport&) = delete;
  Transport& operator=(const Transport&) = delete;
  virtual ~Transport() = default;

  int rank() const { return rank_; }
  int size() const { return size_; }
  virtual std::string name() const = 0;
  virtual Pipeline pipeline() const { return {256 << 10, 2}; }

  // The memory must stay valid until wait() returns for the ticket, or test() says true. Each ticket is completed once.
  virtual Ticket post_send(int peer, ConstBytes bytes, Lane lane) = 0;
  virtual Ticket post_recv(int peer, Bytes bytes, Lane lane) = 0;
  // Raises Timeout at the deadline, PeerFailed if the peer is gone, TransportError otherwise.
  virtual void wait(Ticket ticket, Deadline deadline) = 0;
  // Moves what can be moved without waiting; true once, when the ticket is complete.
  virtual bool test(Ticket ticket) = 0;
  // Waits until ready(), which may post and test; `peer` is who it waits for. Raises as wait() does.
  virtual void wait_until(const std::function<bool()>& ready, int peer, Deadline deadline) {
    (void)ready, (void)peer, (void)deadline;
  }
  // Called again and again by every wait: moves on what is under way beside what is waited for. It must not wait.
  void set_beside(std::function<void()> beside) { beside_ = std::move(beside); }
  // Raises if the group has failed, or `peer` is gone and ready() is still false.
  virtual void check(int peer, const std::function<bool()>& ready) { (void)peer, (void)ready; }
  // Abandons every ticket: nothing that was posted touches memory afterwards. The transport is not used again.
  virtual void abandon() = 0;

  // Rung when a message of lane p2p may have moved on, or null where nobody rings: then it is to be tested for.
  virtual Bell* bell() { return nullptr; }

  // Tells the peers of a failure; their waits raise it.
  virtual void announce(const Failure& failure) { (void)failure; }

  // Bytes that this rank sent, and read or wrote in peers' memory. Any thread may ask; one at a time accounts.
  uint64_t wire_bytes() const { return wire_bytes_.load(std::memory_order_relaxed); }
  void account(size_t bytes) { wire_bytes_.store(wire_bytes() + bytes, std::memory_order_relaxed); }

  // Memory that all ranks can read in place, or null.
  virtual SharedMemory* shared() { return nullptr; }

 protected:
  void move_beside() const {
    if (beside_) beside_();
  }

 private:
  std::function<void()> beside_;
  const int rank_, size_;
  std::atomic<uint64_t> wire_bytes_{0};
};

// Memory common to all ranks of a transport.
class SharedMemory {
 public:
  virtual ~SharedMemory() = default;
  // A place of so many bytes in every rank's stage, the same in each: all ranks claim alike, at most once between two
  // barriers, at most stage_bytes(). Its owner writes there before the next barrier, all may read it until the one
  // after.
  virtual size_t claim(size_t bytes) = 0;
  virtual std::byte* stage(int peer, size_t place) = 0;
  virtual size_t stage_bytes() const = 0;
  // Which stores into a stage bring data to a peer sooner.
  virtual Stores staged_stores() const { return Stores::ordinary; }
  // Returns when every rank has called it; memory written before is visible after.
  virtual void barrier(Deadline deadline) = 0;
  // True if read() works between all ranks, and is faster than a stage.
  virtual bool single_copy() const { return false; }
  // Copies from `from`, an address in rank `peer`'s private memory. Raises TransportError.
  virtual void read(int peer, Bytes to, uint64_t from) { (void)peer, (void)to, (void)from; }
  // Called before reading or writing `bytes` bytes of a peer's memory in place; the recorder writes it down.
  virtual void note_access(int peer, size_t bytes) { (void)peer, (void)bytes; }
};

}  // namespace pycoll
