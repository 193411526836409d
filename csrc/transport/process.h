// A process of this node: is it alive, stopped, or gone.
#pragma once
#include <cstdint>
#include <string>

namespace pycoll {

// Identity of a process: a pid alone can be given out again.
struct ProcessId {
  int pid = 0;
  uint64_t started = 0;  // clock ticks after boot
  static ProcessId self();
};

class Process {
 public:
  Process() = default;  // always alive: a rank that is a thread of this process, or one on another node
  explicit Process(ProcessId id);
  ~Process();
  Process(Process&& other) noexcept;
  Process& operator=(Process&& other) noexcept;

  bool gone() const;     // exited or killed, reaped or not
  bool stopped() const;  // SIGSTOP, a debugger

 private:
  ProcessId id_;
  int pidfd_ = -1;
  bool gone_at_start_ = false;
};

}  // namespace pycoll
