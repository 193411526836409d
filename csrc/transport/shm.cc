#include "transport/shm.h"

#include <sys/uio.h>

#include <cerrno>
#include <cstring>
#include <ctime>

namespace pycoll {
namespace {

// Ranks probe after the first meeting, and show the outcome at the second: by then all know of all.
constexpr uint32_t kProbeTicks = 2;

constexpr int kDyingMilliseconds = 1500;

// Peers that come together come within so many; only a rank that waits longer moves on what is under way beside.
constexpr int kLooks = 50;

constexpr size_t kChannelsMost = size_t(1) << 30;  // of address space, for all channels of a node

constexpr size_t slot_bytes_of(int size) {
  const size_t channels = 2 * size_t(size) * size_t(size);
  return std::clamp(kChannelsMost / (channels * shm::kDepth) / 4096 * 4096, size_t(4096), size_t(64 << 10));
}

constexpr size_t page(size_t bytes) {
  return (bytes + 4095) / 4096 * 4096;
}

constexpr size_t channel_bytes_of(int size) {
  return page(sizeof(shm::Channel)) + shm::kDepth * slot_bytes_of(size);
}

size_t arrivals_at(int size) {
  return page(Board::bytes(size));
}
size_t bells_at(int size) {
  return arrivals_at(size) + 2 * sizeof(shm::Arrival) * size_t(size);
}
size_t stages_at(int size) {
  return page(bells_at(size) + sizeof(shm::Bell) * size_t(size));
}
size_t channels_at(int size) {
  return stages_at(size) + shm::kStageBytes * size_t(size);
}

// This core will write the line, which others may have: asks for it early.
void own_soon(const void* line) {
#if defined(__x86_64__)
  asm volatile("prefetchw %0" ::"m"(*static_cast<const char*>(line)));
#else
  __builtin_prefetch(line, 1);
#endif
}

}  // namespace

size_t ShmTransport::segment_bytes(int size) {
  return channels_at(size) + 2 * size_t(size) * size_t(size) * channel_bytes_of(size);
}

ShmTransport::ShmTransport(std::shared_ptr<Segment> segment, int rank, std::vector<Member> members, int cores)
    : Transport(rank, int(members.size())),
      segment_(std::move(segment)),
      board_(segment_->data(), rank, std::move(members), cores),
      arrivals_(reinterpret_cast<shm::Arrival*>(segment_->data() + arrivals_at(size()))),
      bells_(reinterpret_cast<shm::Bell*>(segment_->data() + bells_at(size()))),
      stages_(segment_->data() + stages_at(size())),
      channels_(segment_->data() + channels_at(size())),
      slot_bytes_(slot_bytes_of(size())),
      channel_bytes_(channel_bytes_of(size())),
      crowded_(size() > cores),
      probed_array_(shm::kProbedBytes / sizeof(uint64_t)) {
  for (int peer = 0; peer < size(); ++peer)
    for (const Lane lane : {Lane::collective, Lane::p2p})
      for (const bool sending : {false, true}) queues_.push_back({{}, peer, lane, sending});
  probed_array_[0] = reinterpret_cast<uint64_t>(probed_array_.data());
  board_.show_probe(probed_array_[0]);
  settle_choices();
}

// The kernel copies from one process to another where its security settings let it (the same that a debugger needs).
bool ShmTransport::try_read(int peer, Bytes to, uint64_t from) const {
  const pid_t pid = board_.member(peer).process.pid;
  if (pid == 0) {
    std::memcpy(to.data(), reinterpret_cast<const void*>(from), to.size());
    return true;
  }
  for (size_t done = 0; done < to.size();) {
    const iovec local{to.data() + done, to.size() - done};
    const iovec remote{reinterpret_cast<void*>(from + done), to.size() - done};
    const ssize_t bytes = process_vm_readv(pid, &local, 1, &remote, 1, 0);
    if (bytes <= 0) return false;
    done += size_t(bytes);
  }
  return true;
}

void ShmTransport::read(int peer, Bytes to, uint64_t from) {
  if (try_read(peer, to, from)) return;
  const int reason = errno;
  // A process that is being killed loses its memory a little before it is seen to be gone.
  for (int i = 0; i < kDyingMilliseconds && reason != EPERM; ++i) {
    check(peer, [] { return false; });
    const timespec rest{0, 1'000'000};
    nanosleep(&rest, nullptr);
  }
  throw TransportError(concat("shm: rank ", rank(), " could not read ", to.size(), " bytes of rank ", peer,
                              "'s memory: ", std::strerror(reason)));
}

// Once all have met, so that every peer's word is there to be read.
void ShmTransport::probe_reading() {
  probed_ = true;
  reads_private_ = true;
  for (int peer = 0; peer < size() && reads_private_; ++peer) {
    uint64_t value = 0;
    const uint64_t address = board_.probe(peer);
    reads_private_ =
        address && try_read(peer, std::as_writable_bytes(std::span(&value, 1)), address) && value == address;
  }
}

void ShmTransport::barrier(Deadline deadline) {
  const uint32_t tick = ++tick_;
  const int parity = int(tick & 1);
  arrival(rank(), parity).can =
      uint8_t((reads_private_ ? shm::kReadsPrivate : 0) | (board_.reached() ? shm::kIsReached : 0));
  arrival(rank(), parity).plan = uint8_t((findings_.streams ? shm::kStreams : 0) |
                                         (findings_.single_copy ? shm::kSingleCopy : 0) | (asking_ ? shm::kProbe : 0));
  arrival(rank(), parity).tick.store(tick, std::memory_order_release);
  const auto missing = [&] {
    std::vector<int> late;
    for (int peer = 0; peer < size(); ++peer)
      if (arrival(peer, parity).tick.load(std::memory_order_acquire) != tick) late.push_back(peer);
    return late;
  };
  for (int peer = 0; peer < size(); ++peer) {
    const std::atomic<uint32_t>& arrived = arrival(peer, parity).tick;
    int looks = 0;
    const auto ready = [&] {
      if (arrived.load(std::memory_order_acquire) == tick) return true;
      if (++looks > kLooks) move_beside();
      return false;
    };
    board_.wait(ready, missing, deadline);
  }
  // Nobody could go on before the last one came, and that one is here: it is soon enough to wake sleepers now, when the
  // fence that this takes no longer waits for the store above.
  board_.ring_all();
  own_soon(&arrival(rank(), next_parity()));
  plan_ = arrival(0, parity).plan;
  if (tick > kProbeTicks) return;
  if (!probed_) probe_reading();
  uint8_t all_can = 0xff;
  for (int peer = 0; peer < size(); ++peer) all_can &= arrival(peer, parity).can;
  all_read_private_ = all_can & shm::kReadsPrivate;
  board_.all_are_reached(all_can & shm::kIsReached);
}

size_t ShmTransport::claim(size_t bytes) {
  const size_t lines = (bytes + shm::kLine - 1) / shm::kLine * shm::kLine;
  if (claimed_ + lines > shm::kStageBytes) claimed_ = 0;
  const size_t place = claimed_;
  claimed_ += lines;
  return place;
}

shm::Channel& ShmTransport::channel(int from, int to, Lane lane) {
  const size_t index = (size_t(from) * size_t(size()) + size_t(to)) * 2 + size_t(lane);
  return *reinterpret_cast<shm::Channel*>(channels_ + index * channel_bytes_);
}

std::byte* ShmTransport::slot(int from, int to, Lane lane, uint32_t index) {
  return reinterpret_cast<std::byte*>(&channel(from, to, lane)) + page(sizeof(shm::Channel)) +
         size_t(index % shm::kDepth) * slot_bytes_;
}

Transport::Ticket ShmTransport::post(Queue& queue, std::byte* data, size_t bytes) {
  Ticket ticket;
  if (free_.empty()) {
    ticket = transfers_.size();
    transfers_.emplace_back();
  } else {
    ticket = free_.back();
    free_.pop_back();
  }
  transfers_[ticket] = {data, bytes, 0, queue.peer, false};
  if (queue.tickets.empty()) active_.push_back(size_t(&queue - queues_.data()));
  queue.tickets.push_back(ticket);
  progress();
  return ticket;
}

Transport::Ticket ShmTransport::post_send(int peer, ConstBytes bytes, Lane lane) {
  // Read only; a transfer has one pointer for both directions.
  return post(queues_[size_t(peer * 4 + int(lane) * 2 + 1)], const_cast<std::byte*>(bytes.data()), bytes.size());
}

Transport::Ticket ShmTransport::post_recv(int peer, Bytes bytes, Lane lane) {
  return post(queues_[size_t(peer * 4 + int(lane) * 2)], bytes.data(), bytes.size());
}

void ShmTransport::ring(const Queue& queue) {
  if (queue.lane == Lane::p2p) {
    board_.ring_with_message(queue.peer);
  } else {
    board_.ring(queue.peer);
  }
}

// Fills free slots with the first message of the queue; true if it is all sent.
bool ShmTransport::push(Queue& queue) {
  Transfer& transfer = transfers_[queue.tickets.front()];
  shm::Channel& to = channel(rank(), queue.peer, queue.lane);
  bool moved = false;
  uint32_t filled = to.filled.load(std::memory_order_relaxed);
  while (!transfer.complete && filled - to.emptied.load(std::memory_order_acquire) < shm::kDepth) {
    const size_t bytes = std::min(slot_bytes_, transfer.bytes - transfer.done);
    if (bytes) std::memcpy(slot(rank(), queue.peer, queue.lane, filled), transfer.data + transfer.done, bytes);
    to.bytes[filled % shm::kDepth] = uint32_t(bytes);
    to.filled.store(++filled, std::memory_order_release);
    transfer.done += bytes;
    transfer.complete = transfer.done == transfer.bytes;
    moved = true;
  }
  if (moved) ring(queue);
  return transfer.complete;
}

// Empties full slots into the first message of the queue; true if it is all there.
bool ShmTransport::pull(Queue& queue) {
  Transfer& transfer = transfers_[queue.tickets.front()];
  shm::Channel& from = channel(queue.peer, rank(), queue.lane);
  bool moved = false;
  uint32_t emptied = from.emptied.load(std::memory_order_relaxed);
  while (!transfer.complete && from.filled.load(std::memory_order_acquire) != emptied) {
    const size_t bytes = from.bytes[emptied % shm::kDepth];
    PYCOLL_CHECK_AS(TransportError, bytes <= transfer.bytes - transfer.done, "shm: rank ", rank(), " got ", bytes,
                    " bytes from rank ", queue.peer, ", wanted at most ", transfer.bytes - transfer.done);
    if (bytes) std::memcpy(transfer.data + transfer.done, slot(queue.peer, rank(), queue.lane, emptied), bytes);
    from.emptied.store(++emptied, std::memory_order_release);
    transfer.done += bytes;
    transfer.complete = transfer.done == transfer.bytes;
    moved = true;
  }
  if (moved) ring(queue);
  return transfer.complete;
}

void ShmTransport::progress() {
  for (size_t i = 0; i < active_.size();) {
    Queue& queue = queues_[active_[i]];
    while (!queue.tickets.empty() && (queue.sending ? push(queue) : pull(queue))) queue.tickets.pop_front();
    if (queue.tickets.empty()) {
      active_[i] = active_.back();
      active_.pop_back();
    } else {
      ++i;
    }
  }
}

bool ShmTransport::test(Ticket ticket) {
  if (!transfers_[ticket].complete) progress();
  if (!transfers_[ticket].complete) return false;
  free_.push_back(ticket);
  return true;
}

void ShmTransport::wait(Ticket ticket, Deadline deadline) {
  const Transfer& transfer = transfers_[ticket];
  const auto complete = [&] {
    if (!transfer.complete) progress();
    return transfer.complete;
  };
  wait_until(complete, transfer.peer, deadline);
  free_.push_back(ticket);
}

void ShmTransport::wait_until(const std::function<bool()>& ready, int peer, Deadline deadline) {
  const auto ready_or_beside = [&] {
    if (ready()) return true;
    move_beside();
    return false;
  };
  board_.wait(ready_or_beside, [&] { return std::vector<int>{peer}; }, deadline);
}

void ShmTransport::abandon() {
  for (Queue& queue : queues_) queue.tickets.clear();
  active_.clear();
}

}  // namespace pycoll
