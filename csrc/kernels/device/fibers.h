// A Context on the CPU, for tests: every thread of a block is a fiber, and barriers, warp operations and atomics are
// real.
//
// One fiber runs until it waits; who is next is drawn by a seed, among the threads of all blocks that are resident, so
// a body that lacks a barrier computes something else under some seed. What no thread can leave throws Stuck, naming
// the threads and the lines where they wait. Memory is sequentially consistent here: missing fences are not found.
#pragma once
#include <ucontext.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <source_location>
#include <string>
#include <type_traits>
#include <vector>

#include "core/error.h"
#include "kernels/device/context.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace pycoll::kernels::device {

struct Stuck : Error {
  using Error::Error;
};

namespace fibers {

using Site = std::source_location;
class Grid;
struct Block;

struct Fiber {
  ucontext_t context;
  const void* stack = nullptr;
  size_t stack_bytes = 0;
  void* fake_stack = nullptr;  // of the address sanitizer
  Block* block = nullptr;
  uint32_t thread = 0, operations = 0;
  const char* waits = nullptr;  // for what, and where
  Site site;
  bool ended = false;
};

#ifdef __SANITIZE_ADDRESS__
inline void leave(Fiber& from, const Fiber& to) {
  __sanitizer_start_switch_fiber(from.ended ? nullptr : &from.fake_stack, to.stack, to.stack_bytes);
}
// Learns of the fiber that was left where its stack is.
inline void arrive(Fiber& at, Fiber& left) {
  __sanitizer_finish_switch_fiber(at.fake_stack, &left.stack, &left.stack_bytes);
}
// Frames that were never returned from are forgotten.
inline void clean(void* stack, size_t bytes) {
  __asan_unpoison_memory_region(stack, bytes);
}
#else
inline void leave(Fiber&, const Fiber&) {}
inline void arrive(Fiber&, Fiber&) {}
inline void clean(void*, size_t) {}
#endif

struct Warp {
  uint32_t waiting = 0;
  std::array<std::array<uint64_t, kWarp>, 2> values;  // of this operation and of the one before, which some still read
};

struct Block {
  static constexpr size_t kStackBytes = 64 << 10;

  uint32_t index = 0, running = kThreads, waiting = 0;
  std::array<Fiber, kThreads> fibers;
  std::array<Warp, kWarps> warps;
  std::map<const void*, std::vector<std::byte>> shared;  // by type
  std::unique_ptr<std::byte[]> stacks{new std::byte[kThreads * kStackBytes]};
};

// "threads 0-31 wait in sync (topk_body.h:40), threads 32-255 ended"
inline std::string describe(const Block& block) {
  const auto text = [](const Fiber& fiber) {
    if (fiber.ended) return std::string("ended");
    if (!fiber.waits) return std::string("run");
    const std::string file = fiber.site.file_name();
    return concat("wait in ", fiber.waits, " (", file.substr(file.rfind('/') + 1), ":", fiber.site.line(), ")");
  };
  std::string all = concat("block ", block.index, ":");
  for (uint32_t first = 0, last; first < kThreads; first = last + 1) {
    const std::string state = text(block.fibers[first]);
    for (last = first; last + 1 < kThreads && text(block.fibers[last + 1]) == state; ++last) {
    }
    all += concat(first ? ", threads " : " threads ", first, "-", last, " ", state);
  }
  return all;
}

class Thread;

class Grid {
 public:
  Grid(uint32_t blocks, uint64_t seed, std::function<void(Thread&)> body)
      : blocks_(blocks), random_(seed), body_(std::move(body)) {}

  void run();

  uint32_t blocks() const { return blocks_; }
  bool chance(uint32_t one_in) { return random_() % one_in == 0; }
  uint32_t garbage() { return uint32_t(random_()); }
  void progress() { idle_ = 0; }
  // Lets others run.
  void yield(Fiber& self) {
    runnable_.push_back(&self);
    next(self);
  }
  // Lets others run while this one waits for another block.
  void relax(Fiber& self, Site site) {
    self.waits = "relax", self.site = site;
    PYCOLL_CHECK_AS(kernels::device::Stuck, ++idle_ < 100000,
                    "a block waits for another in vain: ", describe(*self.block));
    yield(self);
    self.waits = nullptr;
  }
  // Waits until all of `count` fibers that begin at `first` have called this, at the same line for the same thing.
  void meet(Fiber& self, Fiber* first, uint32_t count, uint32_t& waiting, const char* what, Site site) {
    self.waits = what, self.site = site;
    if (++waiting == count) {
      for (Fiber* other = first; other < first + count; ++other)
        PYCOLL_CHECK_AS(kernels::device::Stuck,
                        other->waits && other->site.line() == site.line() && !std::strcmp(other->waits, what),
                        "threads wait for different things: ", describe(*self.block));
      for (Fiber* other = first; other < first + count; ++other) {
        other->waits = nullptr;
        runnable_.push_back(other);
      }
      waiting = 0;
      progress();
    }
    next(self);
  }

 private:
  static constexpr uint32_t kResident = 3;

  static void enter() {  // what a new fiber begins with
    Grid& grid = *current_;
    Fiber& self = *grid.running_;
    arrive(self, *grid.left_);
    grid.live(self);
  }
  void live(Fiber& self);
  void start(Block& block);
  void go(Fiber& from, Fiber& to) {
    running_ = &to, left_ = &from;
    leave(from, to);
    swapcontext(&from.context, &to.context);
    arrive(from, *left_);
  }
  // Goes on with any fiber that can run; if there is none, where run() was.
  void next(Fiber& self) {
    if (runnable_.empty()) return go(self, main_);
    Fiber*& drawn = runnable_[random_() % runnable_.size()];
    Fiber* const to = drawn;
    drawn = runnable_.back();
    runnable_.pop_back();
    if (to != &self) go(self, *to);
  }

  inline static thread_local Grid* current_ = nullptr;
  uint32_t blocks_, started_ = 0, idle_ = 0;
  std::minstd_rand random_;
  std::function<void(Thread&)> body_;
  std::vector<Block*> resident_;
  std::vector<Fiber*> runnable_;
  std::exception_ptr error_;
  Fiber main_, *running_ = nullptr, *left_ = nullptr;
};

// The Context.
class Thread {
 public:
  Thread(Grid& grid, Fiber& fiber) : grid_(grid), fiber_(fiber), block_(*fiber.block) {}

  uint32_t block() const { return block_.index; }
  uint32_t blocks() const { return grid_.blocks(); }
  uint32_t thread() const { return fiber_.thread; }

  void sync(Site site = Site::current()) {
    grid_.meet(fiber_, block_.fibers.data(), kThreads, block_.waiting, "sync", site);
  }
  template <class T>
  T shuffle(T value, uint32_t lane, Site site = Site::current()) {
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof(T));
    std::memcpy(&value, &gather("shuffle", bits, site)[lane], sizeof(T));
    return value;
  }
  uint32_t ballot(bool flag, Site site = Site::current()) {
    const auto& flags = gather("ballot", flag, site);
    uint32_t bits = 0;
    for (uint32_t lane = 0; lane < kWarp; ++lane) bits |= uint32_t(flags[lane]) << lane;
    return bits;
  }
  uint32_t max(uint32_t value, Site site = Site::current()) {
    for (const uint64_t other : gather("max", value, site)) value = std::max(value, uint32_t(other));
    return value;
  }
  uint32_t sum(uint32_t value, Site site = Site::current()) {
    uint32_t total = 0;
    for (const uint64_t other : gather("sum", value, site)) total += uint32_t(other);
    return total;
  }

  uint32_t add(uint32_t* at, uint32_t value) {
    interleave();
    grid_.progress();
    const uint32_t before = *at;
    *at += value;
    return before;
  }
  uint64_t load(const uint64_t* at) {
    interleave();
    return *at;
  }
  void store(uint64_t* at, uint64_t value) {
    interleave();
    grid_.progress();
    *at = value;
  }
  void fence() { interleave(); }
  void relax(Site site = Site::current()) { grid_.relax(fiber_, site); }

  template <class T>
  T& shared() {
    static_assert(std::is_trivially_copyable_v<T> && alignof(T) <= alignof(uint64_t));
    static const char tag = 0;
    auto& bytes = block_.shared[&tag];
    if (bytes.empty()) {
      bytes.resize(sizeof(T));
      for (auto& byte : bytes) byte = std::byte(grid_.garbage());
    }
    return *reinterpret_cast<T*>(bytes.data());
  }

 private:
  void interleave() {
    if (grid_.chance(4)) grid_.yield(fiber_);
  }
  const std::array<uint64_t, kWarp>& gather(const char* what, uint64_t value, Site site) {
    Warp& warp = block_.warps[thread() / kWarp];
    auto& values = warp.values[fiber_.operations++ % 2];
    values[thread() % kWarp] = value;
    grid_.meet(fiber_, &block_.fibers[thread() / kWarp * kWarp], kWarp, warp.waiting, what, site);
    return values;
  }

  Grid& grid_;
  Fiber& fiber_;
  Block& block_;
};
static_assert(Context<Thread>);

inline void Grid::live(Fiber& self) {
  try {
    Thread thread(*this, self);
    body_(thread);
  } catch (...) {
    error_ = std::current_exception();
  }
  self.ended = true;
  if (--self.block->running == 0 || error_) go(self, main_);
  next(self);
}

inline void Grid::start(Block& block) {
  block.index = started_++;
  block.running = kThreads, block.waiting = 0;
  block.warps = {};
  block.shared.clear();
  clean(block.stacks.get(), kThreads * Block::kStackBytes);
  for (uint32_t i = 0; i < kThreads; ++i) {
    Fiber& fiber = block.fibers[i];
    fiber = Fiber{};
    fiber.block = &block, fiber.thread = i;
    fiber.stack = &block.stacks[i * Block::kStackBytes], fiber.stack_bytes = Block::kStackBytes;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = &block.stacks[i * Block::kStackBytes];
    fiber.context.uc_stack.ss_size = Block::kStackBytes;
    makecontext(&fiber.context, enter, 0);
    runnable_.push_back(&fiber);
  }
}

inline void Grid::run() {
  current_ = this;
  static thread_local std::array<Block, kResident> blocks;  // kept: their stacks are mapped
  for (Block& block : blocks) {
    if (started_ == blocks_) break;
    resident_.push_back(&block);
    start(block);
  }
  for (;;) {
    std::erase_if(resident_, [this](Block* block) {
      if (block->running == 0 && started_ < blocks_) start(*block);
      return block->running == 0;
    });
    if (resident_.empty()) return;
    if (runnable_.empty()) break;
    next(main_);
    if (error_) std::rethrow_exception(error_);
  }
  std::string all = "no thread can go on: ";
  for (const Block* block : resident_) all += describe(*block) + "; ";
  throw Stuck(all);
}

}  // namespace fibers

// Runs `body` as a kernel of `blocks` blocks.
inline void run_on_fibers(uint32_t blocks, uint64_t seed, std::function<void(fibers::Thread&)> body) {
  fibers::Grid(blocks, seed, std::move(body)).run();
}

}  // namespace pycoll::kernels::device
