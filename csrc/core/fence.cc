#include "core/fence.h"

#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace pycoll {
namespace {

bool ask(int command) {
  return syscall(SYS_membarrier, command, 0, 0) == 0;
}

}  // namespace

bool reached_by_heavy_fences() {
  return ask(MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED) && ask(MEMBARRIER_CMD_GLOBAL_EXPEDITED);
}

void heavy_fence() {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  ask(MEMBARRIER_CMD_GLOBAL_EXPEDITED);
}

}  // namespace pycoll
