// A group of ranks and the operations between them: validates, agrees, selects, runs.
#pragma once
#include <atomic>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "algo/collectives.h"
#include "algo/select.h"
#include "comm/call.h"
#include "comm/engine.h"
#include "comm/p2p.h"
#include "comm/plan.h"
#include "core/work.h"
#include "transport/shm.h"

namespace pycoll {

struct Options {
  double timeout = 300;         // seconds
  Algo algo = Algo::automatic;  // for kinds that it supports
  algo::Table table;
  std::vector<int> node_of;  // rank -> node, from 0 without gaps; empty: all on one
};

class Communicator {
 public:
  // `node` joins the ranks of this node, in rank order. `world` joins all of them; null: all are on this node.
  Communicator(std::shared_ptr<ShmTransport> node, std::shared_ptr<Transport> world, Options options);
  ~Communicator();

  int rank() const { return world_->rank(); }
  int size() const { return world_->size(); }
  int node_rank() const { return node_->rank(); }
  int node_size() const { return node_->size(); }
  std::string transport() const { return size() == 1 ? "alone" : world_->name(); }
  double timeout() const { return options_.timeout; }
  void set_timeout(double seconds);
  // The ranks of the node meet for the first times and probe the machine; says what was found. Collective, at the
  // start.
  std::string settle();

  // Blocking: on this thread if nothing else is under way, else behind what is.
  void run(Call& call);
  std::shared_ptr<Work> submit(Call call, std::shared_ptr<void> kept);
  // Refuses new calls, waits for those under way, tells the peers. Idempotent.
  void close();
  // Tells the peers at once that this rank is ending, and why; all raise PeerFailed, this rank's operations under way
  // too.
  void abort(const std::string& why);
  bool closed() const { return closed_.load(); }
  // A failure that the group cannot go on after.
  bool failed() const { return failed_.load(); }

  // Memory with one equal part a rank of the node: arrays in it are reduced in place. Collective, all ranks alike.
  void add_region(uint32_t id, std::shared_ptr<Segment> segment, size_t stride);
  void release_region(uint32_t id);

  struct Stats {
    uint64_t operations, wire_bytes, failures;
  };
  Stats stats() const;

 private:
  struct Region {
    std::shared_ptr<Segment> segment;
    size_t stride;
  };
  // Where this rank's arrays are: offsets in regions that its peers can reach; in region 0, addresses of its own.
  struct Place {
    uint32_t in_region = 0, out_region = 0;
    uint64_t in = 0, out = 0;
  };

  void validate(const Call& call) const;
  void execute(Call& call, bool repeats);
  void collective(Call& call, bool repeats, Deadline deadline);
  Call prepare(const Call& call, bool widen);
  void prepare_and_run(Call& call, Deadline deadline);
  [[noreturn]] void explain(const Call& call, Deadline deadline);
  void run_algorithm(const Call& call, Algo algo, Deadline deadline);
  bool run_in_place(const Call& call, std::vector<Place> shown, Deadline deadline);
  void check_pairs(Net& net, const Call& call);
  void run_sharing(const Call& inner, const Call& call, const Plan& plan, Deadline deadline);
  void show(const Call& call, std::byte* stage) const;
  void run_eager(const Call& call);
  void compressed(const Call& call, Deadline deadline);
  void hierarchical(const Call& call, algo::Reduction reduction, Deadline deadline);
  algo::Reduction reduction_of(const Call& call) const { return {call.op, call.op == ReduceOp::avg ? size() : 1}; }
  Signature signature_of(const Call& call) const;
  Algo select(const Call& call) const;
  Plan plan_of(const Call& call) const;
  Place place_of(const Call& call) const;
  static Place addresses_of(const Call& call);
  [[noreturn]] void fail();

  std::shared_ptr<ShmTransport> node_;
  std::shared_ptr<Transport> world_;
  Options options_;
  bool shared_;  // world and node are one
  int nodes_ = 1;
  std::map<uint32_t, Region> regions_;
  mutable std::mutex regions_mutex_;
  Plan plan_;  // of the last collective
  Scratch pack_, wide_in_, wide_out_, scratch_, sums_, residual_;
  uint64_t compressed_ = 0;  // operations with a codec
  std::vector<const std::byte*> inputs_;
  std::atomic<uint64_t> operations_{0}, failures_{0};  // without the messages that p2p_ finishes on its own
  std::atomic<bool> closed_{false}, failed_{false};
  std::optional<Failure> failure_;
  PointToPoint p2p_;
  Engine engine_;  // last: its thread ends first
};

}  // namespace pycoll
