// Temporary memory that an operation borrows and the communicator keeps for the next one.
#pragma once
#include <cstdlib>
#include <memory>
#include <new>

#include "core/bytes.h"

namespace pycoll {

class Scratch {
 public:
  // At least `bytes` bytes, 64-byte aligned; contents undefined; valid until the next call.
  Bytes get(size_t bytes) {
    if (bytes > capacity_) {
      const size_t rounded = (bytes + 4095) / 4096 * 4096;
      memory_.reset(static_cast<std::byte*>(std::aligned_alloc(4096, rounded)));
      capacity_ = memory_ ? rounded : 0;
      if (!memory_) throw std::bad_alloc();
    }
    return {memory_.get(), bytes};
  }
  size_t capacity() const { return capacity_; }
  // Gives back what one large operation took, so that it is not held for the life of a communicator.
  void trim(size_t keep) {
    if (capacity_ > keep) {
      memory_.reset();
      capacity_ = 0;
    }
  }

 private:
  struct Free {
    void operator()(std::byte* p) const { std::free(p); }
  };
  std::unique_ptr<std::byte, Free> memory_;
  size_t capacity_ = 0;
};

}  // namespace pycoll
