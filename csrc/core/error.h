// One error idiom: exceptions whose message names operation, rank, what was wanted and what came.
#pragma once
#include <sstream>
#include <stdexcept>
#include <string>

namespace pycoll {

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};
struct InvalidArgument : Error {
  using Error::Error;
};
struct TransportError : Error {
  using Error::Error;
};
struct DeviceError : Error {
  using Error::Error;
};
// Ranks called different operations, or the same one with different arguments.
struct MismatchError : Error {
  using Error::Error;
};
// A deadline passed while peers that are alive had not arrived.
struct Timeout : Error {
  using Error::Error;
};
// A signal handler of the calling program raised during a wait.
struct Interrupted : Error {
  using Error::Error;
};
// A peer exited, was killed, or is stopped.
struct PeerFailed : Error {
  PeerFailed(const std::string& what, int rank, std::string host, std::string operation)
      : Error(what), rank(rank), host(std::move(host)), operation(std::move(operation)) {}
  int rank;
  std::string host;
  std::string operation;  // the last one that it took part in
};

template <class... Parts>
std::string concat(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

}  // namespace pycoll

#define PYCOLL_CHECK_AS(Kind, condition, ...)                              \
  do {                                                                     \
    if (!(condition)) throw ::pycoll::Kind(::pycoll::concat(__VA_ARGS__)); \
  } while (0)
#define PYCOLL_CHECK(condition, ...) PYCOLL_CHECK_AS(InvalidArgument, condition, __VA_ARGS__)
