// Memory shared by the ranks of a node. It has no name: an anonymous file (memfd) that peers open through the creator's
// /proc entry, so that the kernel frees it with the last process that maps it, however that process ends.
#pragma once
#include <memory>
#include <string>

#include "core/bytes.h"

namespace pycoll {

class Segment {
 public:
  static std::shared_ptr<Segment> create(size_t bytes);
  // The segment that process `pid` of this node created and still holds open as descriptor `fd`.
  static std::shared_ptr<Segment> open(int pid, int fd, size_t bytes);
  // Ordinary memory of this process, for ranks that are its threads.
  static std::shared_ptr<Segment> local(size_t bytes);
  ~Segment();
  Segment(const Segment&) = delete;
  Segment& operator=(const Segment&) = delete;

  std::byte* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  int fd() const { return fd_; }
  // To be called once every peer has opened it: the mapping stays, the descriptor goes.
  void close_fd();

 private:
  Segment(std::byte* data, size_t bytes, int fd) : data_(data), bytes_(bytes), fd_(fd) {}
  static std::shared_ptr<Segment> map(int fd, size_t bytes);
  std::byte* data_;
  size_t bytes_;
  int fd_;
};

}  // namespace pycoll
