// Messages whose length the receiver does not know, between all ranks: eight bytes that tell it go ahead of each.
#pragma once
#include <algorithm>
#include <vector>

#include "core/error.h"
#include "pattern/rotation.h"
#include "transport/net.h"

namespace pycoll::algo {

class Parcels {
 public:
  // None is longer than `most` bytes: a peer that announces more is refused, as `what`'s.
  Parcels(Net& net, size_t most, const char* what)
      : net_(net), most_(most), what_(what), flights_(size_t(net.size())), landed_(size_t(net.size())) {}

  // Sends outgoing(peer) to every other rank; what came, by rank. So many are under way at most, each way.
  static constexpr int kWindow = 16;
  template <class Outgoing>
  std::vector<std::vector<std::byte>> exchange(Outgoing&& outgoing) {
    const int ranks = net_.size();
    for (int first = 1; first < ranks; first += kWindow) {
      const int last = std::min(first + kWindow, ranks);
      for (int distance = first; distance < last; ++distance) begin(distance, outgoing(rotation_.to(distance)));
      for (int distance = first; distance < last; ++distance) receive(distance);
      for (int distance = first; distance < last; ++distance) finish(distance);
    }
    return std::move(landed_);
  }

 private:
  struct Flight {
    uint64_t leaves = 0, lands = 0;  // bytes
    Transport::Ticket told{}, arriving{}, length{}, leaving{};
  };

  void begin(int distance, ConstBytes parcel) {
    Flight& flight = flights_[size_t(distance)];
    flight.leaves = parcel.size();
    flight.told = net_.post_recv(rotation_.from(distance), std::as_writable_bytes(std::span(&flight.lands, 1)));
    flight.length = net_.post_send(rotation_.to(distance), std::as_bytes(std::span(&flight.leaves, 1)));
    if (flight.leaves) flight.leaving = net_.post_send(rotation_.to(distance), parcel);
  }

  void receive(int distance) {
    Flight& flight = flights_[size_t(distance)];
    const int from = rotation_.from(distance);
    net_.wait(flight.told);
    PYCOLL_CHECK_AS(TransportError, flight.lands <= most_, what_, ": rank ", from, " announced ", flight.lands,
                    " bytes, wanted at most ", most_);
    std::vector<std::byte>& landed = landed_[size_t(from)];
    landed.resize(size_t(flight.lands));
    if (flight.lands) flight.arriving = net_.post_recv(from, landed);
  }

  void finish(int distance) {
    const Flight& flight = flights_[size_t(distance)];
    if (flight.lands) net_.wait(flight.arriving);
    net_.wait(flight.length);
    if (flight.leaves) net_.wait(flight.leaving);
  }

  Net& net_;
  const pattern::Rotation rotation_{net_.rank(), net_.size()};
  const size_t most_;
  const char* const what_;
  std::vector<Flight> flights_;  // by distance
  std::vector<std::vector<std::byte>> landed_;
};

}  // namespace pycoll::algo
