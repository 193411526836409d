#include "transport/segment.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/error.h"

namespace pycoll {
namespace {

constexpr size_t kPage = 4096, kHugePage = 2 << 20;

}  // namespace

std::shared_ptr<Segment> Segment::map(int fd, size_t bytes) {
  // Huge pages need an address that is a multiple of theirs: more is reserved, and the rest given back.
  void* at = MAP_FAILED;
  void* const reserved =
      mmap(nullptr, bytes + kHugePage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved != MAP_FAILED) {
    const auto first = reinterpret_cast<uintptr_t>(reserved), last = first + bytes + kHugePage;
    const uintptr_t begin = (first + kHugePage - 1) / kHugePage * kHugePage,
                    end = begin + (bytes + kPage - 1) / kPage * kPage;
    at = mmap(reinterpret_cast<void*>(begin), bytes, PROT_READ | PROT_WRITE,
              MAP_FIXED | (fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED), fd, 0);
    if (begin > first) munmap(reserved, begin - first);
    if (last > end) munmap(reinterpret_cast<void*>(end), last - end);
  }
  if (at == MAP_FAILED) {
    const int reason = errno;
    if (fd >= 0) close(fd);
    throw TransportError(concat("shared memory: mapping ", bytes, " bytes failed: ", std::strerror(reason)));
  }
  madvise(at, bytes, MADV_HUGEPAGE);  // advice: systems that have none for this kind of memory ignore it
  return std::shared_ptr<Segment>(new Segment(static_cast<std::byte*>(at), bytes, fd));
}

std::shared_ptr<Segment> Segment::create(size_t bytes) {
  const int fd = memfd_create("pycoll", MFD_CLOEXEC);
  PYCOLL_CHECK_AS(TransportError, fd >= 0, "shared memory: memfd_create failed: ", std::strerror(errno));
  if (ftruncate(fd, off_t(bytes)) != 0) {
    const int reason = errno;
    close(fd);
    throw TransportError(concat("shared memory: ", bytes, " bytes cannot be had: ", std::strerror(reason)));
  }
  return map(fd, bytes);
}

std::shared_ptr<Segment> Segment::open(int pid, int fd, size_t bytes) {
  const std::string path = concat("/proc/", pid, "/fd/", fd);
  const int mine = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  PYCOLL_CHECK_AS(
      TransportError, mine >= 0, "shared memory: opening ", path, " of a peer failed: ", std::strerror(errno),
      " (ranks of one node must run as one user and in one PID namespace; PYCOLL_TRANSPORT=mpi goes without)");
  struct stat facts;
  if (fstat(mine, &facts) != 0 || size_t(facts.st_size) != bytes) {
    close(mine);
    throw TransportError(
        concat("shared memory: ", path, " is not the segment of ", bytes, " bytes that was announced"));
  }
  return map(mine, bytes);
}

std::shared_ptr<Segment> Segment::local(size_t bytes) {
  return map(-1, bytes);
}

Segment::~Segment() {
  close_fd();
  munmap(data_, bytes_);
}

void Segment::close_fd() {
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
}

}  // namespace pycoll
