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
constexpr int kFlags = 32, kTurns = 3;
constexpr double kEvery = 0.05;         // seconds between probes, at least; one takes 0.02 to 0.1 ms
constexpr double kEveryCrowded = 0.25;  // it waits for ranks that share its cores
// What goes through a cache that the cores share is there sooner than what goes through memory. A short trial does not
// always show it: after something else had the caches, it is streaming stores that need them least.
constexpr float kFarNs = 150;
constexpr double kSwitchSeconds = 1e-6;  // less than going from one rank to another on the same core takes
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
  const std::string flag = concat("a flag takes ", f.flag_ns, " ns to the farthest rank");
  const std::string chosen = concat("; chosen: ", f.streams ? "streaming" : "ordinary", " stores",
                                    f.single_copy ? ", single copy of large arrays" : "");
  if (f.ordinary_us == 0) return flag + chosen;
  const std::string copy = f.single_copy_us > 0 ? concat(f.single_copy_us, " us by single copy") : "no single copy";
  return concat(flag, "; ", kProbedBytes >> 10, " KiB both ways take ", f.ordinary_us, " us by ordinary stores, ",
                f.streaming_us, " us by streaming ones, ", copy, chosen);
}

void ShmTransport::settle_choices() {
  forced_stores_ = wanted("PYCOLL_STORES", "ordinary", "streaming");
  forced_single_copy_ = wanted("PYCOLL_SINGLE_COPY", "0", "1");
  findings_.streams = forced_stores_ == 1;
  findings_.single_copy = forced_single_copy_ == 1;
}

void ShmTransport::ask_for_probe() {
  if (rank() != 0 || size() == 1 || (forced_stores_ >= 0 && forced_single_copy_ >= 0)) return;
  const double now = seconds();
  if (now < next_probe_) return;
  next_probe_ = now + (crowded_ ? kEveryCrowded : kEvery);
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

// The time of one flag each way, the least of many; 0 if the two seem to take turns on one core.
float ShmTransport::flag_ns(int peer, Deadline deadline) {
  double least = 1;
  for (int i = 0; i < kFlags; ++i) {
    const double begin = seconds();
    meet(peer, deadline);
    least = std::min(least, seconds() - begin);
  }
  return least < kSwitchSeconds ? float(least * 1e9) : 0;
}

// Rank 0 with each of the others in turn, then, where each has a core of its own, with the farthest.
void ShmTransport::probe(Deadline deadline) {
  const size_t places = claim(kWays * kProbedBytes);
  Findings found;
  int farthest = 1;
  for (int peer = 1; peer < size(); ++peer) {
    if (rank() != 0 && rank() != peer) continue;
    const float ns = flag_ns(rank() == 0 ? peer : 0, deadline);
    if (ns <= found.flag_ns) continue;
    found.flag_ns = ns;
    farthest = peer;
  }
  for (int peer = 1; peer < size() && !crowded_; ++peer) {
    if (rank() != 0 && rank() != peer) continue;
    const int other = rank() == 0 ? peer : 0;
    if (rank() == 0) bells_[peer].farthest.store(peer == farthest, std::memory_order_relaxed);
    meet(other, deadline);
    if (!bells_[peer].farthest.load(std::memory_order_relaxed)) continue;
    double least[kWays] = {1, 1, 1};
    for (int turn = 0; turn < kTurns; ++turn)
      for (int way = 0; way < kWays; ++way)
        least[way] = std::min(least[way], exchange(other, way, places + size_t(way) * kProbedBytes, deadline));
    found.ordinary_us = float(least[kOrdinary] * 1e6);
    found.streaming_us = float(least[kStreaming] * 1e6);
    found.single_copy_us = float(least[kSingleCopy] * 1e6);
  }
  if (rank() != 0 || found.flag_ns == 0) return;
  const float staged = std::min(found.ordinary_us, found.streaming_us);
  found.streams = found.flag_ns > kFarNs && (crowded_ || found.streaming_us < found.ordinary_us);
  found.single_copy = found.single_copy_us > 0 && found.single_copy_us < kWorthIt * staged;
  if (forced_stores_ >= 0) found.streams = forced_stores_ == 1;
  if (forced_single_copy_ >= 0) found.single_copy = forced_single_copy_ == 1;
  findings_ = found;
}

}  // namespace pycoll
