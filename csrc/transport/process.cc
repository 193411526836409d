#include "transport/process.h"

#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <utility>

namespace pycoll {
namespace {

struct Stat {
  char state = 0;  // 0: no such process
  uint64_t started = 0;
};

// Fields of /proc/<pid>/stat behind the command, which may itself hold blanks and parentheses.
Stat stat_of(int pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string line;
  if (!std::getline(file, line)) return {};
  const size_t close = line.rfind(')');
  if (close == std::string::npos) return {};
  std::istringstream fields(line.substr(close + 1));
  Stat stat;
  fields >> stat.state;
  std::string skipped;
  for (int field = 4; field < 22; ++field) fields >> skipped;
  fields >> stat.started;
  return stat;
}

}  // namespace

ProcessId ProcessId::self() {
  const int pid = int(getpid());
  return {pid, stat_of(pid).started};
}

Process::Process(ProcessId id) : id_(id) {
  pidfd_ = int(syscall(SYS_pidfd_open, id.pid, 0));  // Linux 5.3; without it /proc answers
  const Stat stat = stat_of(id.pid);
  gone_at_start_ = stat.state == 0 || stat.started != id.started;
}

Process::~Process() {
  if (pidfd_ >= 0) close(pidfd_);
}

Process::Process(Process&& other) noexcept {
  *this = std::move(other);
}

Process& Process::operator=(Process&& other) noexcept {
  std::swap(id_, other.id_);
  std::swap(pidfd_, other.pidfd_);
  std::swap(gone_at_start_, other.gone_at_start_);
  return *this;
}

bool Process::gone() const {
  if (id_.pid == 0) return false;
  if (gone_at_start_) return true;
  if (pidfd_ >= 0) {
    pollfd entry{pidfd_, POLLIN, 0};
    return poll(&entry, 1, 0) == 1;
  }
  const Stat stat = stat_of(id_.pid);
  return stat.state == 0 || stat.state == 'Z' || stat.state == 'X' || stat.started != id_.started;
}

bool Process::stopped() const {
  if (id_.pid == 0) return false;
  const char state = stat_of(id_.pid).state;
  return state == 'T' || state == 't';
}

}  // namespace pycoll
