// Exchanges with many peers, a bounded number in flight.
#pragma once
#include <vector>

#include "transport/net.h"

namespace pycoll::algo {

// Finished in the order begun. Empty messages are not sent.
class Window {
 public:
  Window(Net& net, size_t most) : net_(net), flights_(most) {}

  // Waits until there is room for one more; returns how many are finished.
  size_t make_room() {
    if (begun_ - finished_ == flights_.size()) finish();
    return finished_;
  }
  void exchange(int to, ConstBytes out, int from, Bytes in) {
    Flight& flight = flights_[begun_++ % flights_.size()];
    flight = {!in.empty(), !out.empty(), 0, 0};
    if (flight.receiving) flight.received = net_.post_recv(from, in);
    if (flight.sending) flight.sent = net_.post_send(to, out);
  }
  void finish() {
    const Flight& flight = flights_[finished_++ % flights_.size()];
    if (flight.receiving) net_.wait(flight.received);
    if (flight.sending) net_.wait(flight.sent);
  }
  void finish_all() {
    while (finished_ < begun_) finish();
  }
  size_t begun() const { return begun_; }

 private:
  struct Flight {
    bool receiving = false, sending = false;
    Transport::Ticket received = 0, sent = 0;
  };
  Net& net_;
  std::vector<Flight> flights_;
  size_t begun_ = 0, finished_ = 0;
};

}  // namespace pycoll::algo
