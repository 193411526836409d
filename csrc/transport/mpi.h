// Transport over MPI messages: between nodes, or wherever it is asked for. The only room that knows MPI.
#pragma once
#include <mpi.h>

#include <deque>
#include <mutex>
#include <optional>
#include <vector>

#include "transport/board.h"
#include "transport/shm.h"
#include "transport/transport.h"

namespace pycoll {

// An MPI error code as an exception: TransportError("MPI_Isend: ... MPI's own sentence").
void check_mpi(int code, const char* call);
#define PYCOLL_MPI(call) ::pycoll::check_mpi((call), #call)

class MpiTransport final : public Transport {
 public:
  // `comm` becomes this transport's own: it is freed with it. `node` knows the processes of this node; members are all
  // ranks, in rank order.
  MpiTransport(MPI_Comm comm, std::shared_ptr<ShmTransport> node, std::vector<Member> members);
  ~MpiTransport() override;

  std::string name() const override { return "mpi"; }
  Pipeline pipeline() const override;
  Ticket post_send(int peer, ConstBytes bytes, Lane lane) override;
  Ticket post_recv(int peer, Bytes bytes, Lane lane) override;
  void wait(Ticket ticket, Deadline deadline) override;
  void wait_until(const std::function<bool()>& ready, int peer, Deadline deadline) override;
  bool test(Ticket ticket) override;
  void check(int peer, const std::function<bool()>& ready) override;
  void announce(const Failure& failure) override;
  void abandon() override;

 private:
  struct Transfer {
    std::vector<MPI_Request> requests;  // one for each piece
    size_t wanted = 0;                  // bytes, of a receive
    int peer = -1;
    bool receiving = false, complete = false;
  };
  // A failure as it travels.
  struct Notice {
    uint32_t kind;
    int32_t rank;
    char host[128], operation[256], text[1024];
  };

  Ticket post(int peer, std::byte* data, size_t bytes, Lane lane, bool receiving);
  bool complete(Transfer& transfer);
  int node_index(int rank) const;
  void check_notice();
  [[noreturn]] void expire(int peer);
  [[noreturn]] void failed(int peer, int code, const char* what);

  MPI_Comm comm_;
  std::shared_ptr<ShmTransport> node_;
  std::vector<Member> members_;
  std::deque<Transfer> transfers_;
  std::vector<Ticket> free_;
  Notice* notice_;  // not freed while a receive into it may be under way
  MPI_Request notice_request_ = MPI_REQUEST_NULL;
  std::mutex failure_mutex_;
  std::optional<Failure> failure_;
  bool abandoned_with_traffic_ = false;
};

}  // namespace pycoll
