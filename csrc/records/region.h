// Memory of the kernel's, given back as soon as it is released: what a budget counts must not linger in a heap.
#pragma once
#include <sys/mman.h>

#include <cstddef>
#include <utility>

#include "core/error.h"

namespace pycoll::records {

class Region {
 public:
  Region() = default;
  // All zero. Counts as used only where it has been written.
  explicit Region(size_t bytes) : bytes_(bytes) {
    if (!bytes) return;
    void* got = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    PYCOLL_CHECK_AS(Error, got != MAP_FAILED, "mapreduce: there is no room for ", bytes, " bytes of memory");
    data_ = static_cast<char*>(got);
    if (bytes >= (size_t{4} << 20)) madvise(got, bytes, MADV_HUGEPAGE);
  }
  Region(Region&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  Region& operator=(Region&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Region() {
    if (data_) munmap(data_, bytes_);
  }
  char* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  // Zero again, and not used.
  void clear() {
    if (data_) madvise(data_, bytes_, MADV_DONTNEED);
  }

 private:
  char* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace pycoll::records
