// Prints as JSON what an algorithm sends: record <algorithm> <ranks> <count of f32> [<ranks of the first node>]
// Used by tools/draw_algorithms.py. Without arguments, the names of the algorithms.
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>

#include "algo/collectives.h"
#include "pattern/hierarchy.h"
#include "transport/recorder.h"

using namespace pycoll;

namespace {

struct Arrays {
  ConstBuffer in;
  Buffer out;
  Layout layout;
  Scratch scratch;
  pattern::Hierarchy hierarchy;

  ConstBuffer own(int rank) const { return in[layout[size_t(rank)]]; }
};
using Run = std::function<void(Net&, Arrays&)>;
constexpr algo::Reduction kSum{ReduceOp::sum};

template <auto Allreduce>
void allreduce(Net& net, Arrays& a) {
  Allreduce(net, a.in, a.out, kSum, a.scratch);
}

void hierarchical(Net& net, Arrays& a) {
  Net node = net.among(a.hierarchy.members(a.hierarchy.node_of[size_t(net.rank())]));
  std::unique_ptr<Net> across;
  const int lanes = a.hierarchy.lanes();
  if (node.rank() < lanes) across = std::make_unique<Net>(net.among(a.hierarchy.across(node.rank())));
  algo::Levels levels{node, across.get(), lanes};
  algo::hierarchical_allreduce(levels, a.in, a.out, kSum, a.scratch);
}

const std::map<std::string, Run> kRuns = {
    {"ring", allreduce<algo::ring_allreduce>},
    {"circulant", allreduce<algo::circulant_allreduce>},
    {"halving", allreduce<algo::halving_allreduce>},
    {"doubling", allreduce<algo::doubling_allreduce>},
    {"tree", allreduce<algo::tree_allreduce>},
    {"pairwise", allreduce<algo::pairwise_allreduce>},
    {"hierarchical", hierarchical},
    {"direct", [](Net& net, Arrays& a) { algo::direct_allreduce(net, a.in, a.out, kSum); }},
    {"tree_broadcast", [](Net& net, Arrays& a) { algo::tree_broadcast(net, a.out, 0); }},
    {"tree_reduce", [](Net& net, Arrays& a) { algo::tree_reduce(net, a.in, a.out, 0, kSum, a.scratch); }},
    {"tree_gather",
     [](Net& net, Arrays& a) { algo::tree_gather(net, a.own(net.rank()), a.out, 0, a.layout, a.scratch); }},
    {"dissemination", [](Net& net, Arrays&) { algo::dissemination_barrier(net); }},
};

void print(const char* name, int ranks, size_t count, Recording& recording) {
  const char* comma = "";
  std::printf(
      "{\"algorithm\": \"%s\", \"ranks\": %d, \"bytes\": %zu, \"rounds\": %d, \"barriers\": %d,\n \"messages\": [",
      name, ranks, 4 * count, recording.rounds(), recording.barriers());
  for (const Message& m : recording.messages()) {
    std::printf("%s\n  {\"from\": %d, \"to\": %d, \"bytes\": %zu, \"round\": %d}", comma, m.from, m.to, m.bytes,
                m.round);
    comma = ",";
  }
  // What is read from peers in place, by the number of barriers before it.
  std::printf("],\n \"reads\": [");
  comma = "";
  for (int rank = 0; rank < ranks; ++rank) {
    int barriers = 0;
    for (const Event& event : recording.trace(rank)) {
      if (event.kind == Event::Kind::barrier) ++barriers;
      if (event.kind != Event::Kind::access) continue;
      std::printf("%s\n  {\"from\": %d, \"to\": %d, \"bytes\": %zu, \"round\": %d}", comma, event.peer, rank,
                  event.bytes, barriers);
      comma = ",";
    }
  }
  std::printf("]}\n");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    for (const auto& [name, run] : kRuns) std::printf("%s\n", name.c_str());
    return argc == 1 ? 0 : 2;
  }
  const auto found = kRuns.find(argv[1]);
  const int ranks = std::atoi(argv[2]), first_node = argc > 4 ? std::atoi(argv[4]) : (ranks + 1) / 2;
  const size_t count = std::strtoull(argv[3], nullptr, 10);
  if (found == kRuns.end() || ranks < 1) {
    std::fprintf(stderr, "record: no algorithm '%s' on %d ranks\n", argv[1], ranks);
    return 2;
  }
  std::vector<float> in(count, 1.0f), out(count);
  Arrays arrays{{reinterpret_cast<const std::byte*>(in.data()), count, DType::f32},
                {reinterpret_cast<std::byte*>(out.data()), count, DType::f32},
                layout_of(Partition{count, size_t(ranks)}),
                {},
                {}};
  for (int rank = 0; rank < ranks; ++rank) arrays.hierarchy.node_of.push_back(rank < first_node ? 0 : 1);

  Recording recording(ranks);
  for (int rank = 0; rank < ranks; ++rank) {
    Recorder transport(recording, rank, ranks, Recorder::Memory::common);
    Net net(transport, Deadline::after(60));
    found->second(net, arrays);
  }
  print(argv[1], ranks, count, recording);
}
