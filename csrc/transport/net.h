// The ranks that one operation runs on, and the deadline it must meet: what algorithms are written against.
#pragma once
#include <cassert>
#include <vector>

#include "transport/transport.h"

namespace pycoll {

class Net {
 public:
  Net(Transport& transport, Deadline deadline) : transport_(transport), deadline_(deadline), rank_(transport.rank()) {}

  // A subgroup: member i of it is rank members[i] here. This rank must be among them.
  Net among(const std::vector<int>& members) const {
    Net net(transport_, deadline_);
    net.rank_ = -1;
    for (size_t i = 0; i < members.size(); ++i) {
      net.members_.push_back(global(members[i]));
      if (members[i] == rank_) net.rank_ = int(i);
    }
    assert(net.rank_ >= 0);
    return net;
  }

  int rank() const { return rank_; }
  int size() const { return members_.empty() ? transport_.size() : int(members_.size()); }
  Pipeline pipeline() const { return transport_.pipeline(); }

  Transport::Ticket post_send(int to, ConstBytes out) {
    transport_.account(out.size());
    return transport_.post_send(global(to), out, Lane::collective);
  }
  Transport::Ticket post_recv(int from, Bytes in) { return transport_.post_recv(global(from), in, Lane::collective); }
  void wait(Transport::Ticket ticket) { transport_.wait(ticket, deadline_); }

  void send(int to, ConstBytes out) { wait(post_send(to, out)); }
  void recv(int from, Bytes in) { wait(post_recv(from, in)); }
  void exchange(int to, ConstBytes out, int from, Bytes in) {
    const auto receiving = post_recv(from, in);
    const auto sending = post_send(to, out);
    wait(receiving);
    wait(sending);
  }

  // Memory common to all members, or null; a subgroup of a transport has none.
  SharedMemory* shared() const { return members_.empty() ? transport_.shared() : nullptr; }
  Deadline deadline() const { return deadline_; }

 private:
  int global(int member) const { return members_.empty() ? member : members_[size_t(member)]; }

  Transport& transport_;
  Deadline deadline_;
  int rank_;
  std::vector<int> members_;
};

}  // namespace pycoll
