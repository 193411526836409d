// The probe of ShmTransport: rank 0 with each of the others, then with the farthest.
#include "transport/probe.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "core/copy.h"
#include "core/error.h"
#include "transport/shm.h"

namespace pycoll {
namespace {

using shm::kProbedBytes;
constexpr int kPings = 4, kMeetings = 8, kTurns = 3;
constexpr double kEvery = 0.05;  // seconds between probes, at least; one takes 0.02 to 0.1 ms
// A single copy of large arrays misses caches more often than the probe's few pages do.
constexpr float kWorthIt = 0.7f;
enum Way { kOrdinary, kStreaming, kSingleCopy, kWays };

double seconds() {
  return std::chrono::duration<double>(Deadline::Clock::now().time_since_epoch()).count();
}

// What the user wants whatever is found: 1, 0, or -1 for nothing.
int wanted(const char* variable, std::string_view no, std::string_view yes) {
  const char* const text = std::getenv(variable);
  if (!text || !*text) return -1;
  PYCOLL_CHECK(text == no || text == yes, variable, " is '", text, "', wanted ", no, " or ", yes);
  return text == yes;
}

}  // namespace

std::string describe(const Findings& f) {
  if (f.flag_ns == 0) return concat("not probed; stores ", f.streams ? "streaming" : "ordinary");
  const std::string copy = f.single_copy_us > 0 ? concat(f.single_copy_us, " us by single copy") : "no single copy";
  return concat("a flag takes ", f.flag_ns, " ns to the farthest rank; ", kProbedBytes >> 10, " KiB both ways take ",
                f.ordinary_us, " us by ordinary stores, ", f.streaming_us, " us by streaming ones, ", copy,
                "; chosen: ", f.streams ? "streaming" : "ordinary", " stores",
                f.single_copy ? ", single copy of large arrays" : "");
}

void ShmTransport::settle_choices() {
  forced_stores_ = wanted("PYCOLL_STORES", "ordinary", "streaming");
  forced_single_copy_ = wanted("PYCOLL_SINGLE_COPY", "0", "1");
  findings_.streams = forced_stores_ == 1;
  findings_.single_copy = forced_single_copy_ == 1;
}

void ShmTransport::ask_for_probe() {
  if (rank() != 0 || crowded_ || size() == 1 || (forced_stores_ >= 0 && forced_single_copy_ >= 0)) return;
  const double now = seconds();
  if (now < next_probe_) return;
  next_probe_ = now + kEvery;
  asking_ = true;
}

void ShmTransport::probe_if_asked(Deadline deadline) {
  if (!(plan_ & shm::kProbe)) return;
  asking_ = false;
  probe(deadline);
}

// A flag each way, at the same time.
void ShmTransport::meet(int peer, Deadline deadline) {
  shm::Bell& bell = bells_[rank() == 0 ? peer : rank()];
  std::atomic<uint32_t>& mine = rank() == 0 ? bell.there : bell.back;
  const std::atomic<uint32_t>& other = rank() == 0 ? bell.back : bell.there;
  const uint32_t count = mine.load(std::memory_order_relaxed) + 1;
  mine.store(count, std::memory_order_release);
  board_.ring(peer);
  wait_until([&] { return int32_t(other.load(std::memory_order_acquire) - count) >= 0; }, peer, deadline);
}

// Seconds in which kProbedBytes came to the peer and as many from it; 0 if that way is not open.
double ShmTransport::exchange(int peer, int way, size_t place, Deadline deadline) {
  const auto* const own = reinterpret_cast<const std::byte*>(probed_array_.data());
  std::byte landed[4096];
  bool came = true;
  meet(peer, deadline);
  const double begin = seconds();
  if (way != kSingleCopy) {
    copy_into(stage(rank(), place), own, kProbedBytes, way == kStreaming ? Stores::streaming : Stores::ordinary);
    meet(peer, deadline);
  }
  for (size_t at = 0; at < kProbedBytes; at += sizeof landed) {
    if (way != kSingleCopy) {
      std::memcpy(landed, stage(peer, place) + at, sizeof landed);
    } else if (came) {
      came = all_read_private_ && try_read(peer, landed, board_.probe(peer) + at);
    }
    asm volatile("" : : "r"(landed) : "memory");  // the copy is meant
  }
  meet(peer, deadline);
  return came ? seconds() - begin : 0;
}

// Rank 0 with each of the others in turn, then with the farthest: the least of a few times, since the rest is noise.
void ShmTransport::probe(Deadline deadline) {
  const size_t places = claim(kTurns * kWays * kProbedBytes);
  // The first touch of a page is the kernel's work, and not what is asked for.
  for (size_t at = places; at < places + kTurns * kWays * kProbedBytes; at += 4096)
    for (int peer = 0; peer < size(); ++peer) *reinterpret_cast<volatile std::byte*>(stage(peer, at));
  Findings found;
  int farthest = 1;
  for (int peer = 1; peer < size(); ++peer) {
    if (rank() != 0 && rank() != peer) continue;
    const int other = rank() == 0 ? peer : 0;
    double least = 1;
    for (int i = 0; i < kPings; ++i) {
      const double begin = seconds();
      for (int k = 0; k < kMeetings; ++k) meet(other, deadline);
      least = std::min(least, (seconds() - begin) / kMeetings);
    }
    if (float(least * 1e9) <= found.flag_ns) continue;
    found.flag_ns = float(least * 1e9);
    farthest = peer;
  }
  for (int peer = 1; peer < size(); ++peer) {
    if (rank() != 0 && rank() != peer) continue;
    const int other = rank() == 0 ? peer : 0;
    if (rank() == 0) bells_[peer].farthest.store(peer == farthest, std::memory_order_relaxed);
    meet(other, deadline);
    if (!bells_[peer].farthest.load(std::memory_order_relaxed)) continue;
    double least[kWays] = {1, 1, 1};
    for (int turn = 0; turn < kTurns; ++turn)
      for (int way = 0; way < kWays; ++way)
        least[way] =
            std::min(least[way], exchange(other, way, places + size_t(turn * kWays + way) * kProbedBytes, deadline));
    found.ordinary_us = float(least[kOrdinary] * 1e6);
    found.streaming_us = float(least[kStreaming] * 1e6);
    found.single_copy_us = float(least[kSingleCopy] * 1e6);
  }
  if (rank() != 0) return;
  const float staged = std::min(found.ordinary_us, found.streaming_us);
  found.streams = forced_stores_ >= 0 ? forced_stores_ == 1 : found.streaming_us < found.ordinary_us;
  found.single_copy = forced_single_copy_ >= 0 ? forced_single_copy_ == 1
                                               : found.single_copy_us > 0 && found.single_copy_us < kWorthIt * staged;
  findings_ = found;
}

}  // namespace pycoll
