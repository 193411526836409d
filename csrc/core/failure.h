// A failure in a form that ranks can tell each other, and raise again.
#pragma once
#include <exception>
#include <string>

#include "core/error.h"

namespace pycoll {

struct Failure {
  enum class Kind : uint8_t { none, peer_failed, timeout, transport };
  Kind kind = Kind::none;
  int rank = -1;          // the culprit, -1 if it is not known
  std::string host;       // the culprit's
  std::string operation;  // the culprit's last one
  std::string text;

  [[noreturn]] void raise() const {
    if (kind == Kind::peer_failed) throw PeerFailed(text, rank, host, operation);
    if (kind == Kind::timeout) throw Timeout(text);
    throw TransportError(text);
  }
  // The failure that an exception thrown inside a collective stands for; kind none if ranks can go on after it.
  static Failure from(const std::exception_ptr& thrown) {
    try {
      std::rethrow_exception(thrown);
    } catch (const PeerFailed& e) {
      return {Kind::peer_failed, e.rank, e.host, e.operation, e.what()};
    } catch (const Timeout& e) {
      return {Kind::timeout, -1, "", "", e.what()};
    } catch (const InvalidArgument&) {
      return {};
    } catch (const MismatchError&) {
      return {};
    } catch (const std::exception& e) {
      return {Kind::transport, -1, "", "", e.what()};
    }
  }
};

}  // namespace pycoll
