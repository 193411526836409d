// Ranks as threads of the test: a communicator each, over memory of this process.
#pragma once
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "comm/communicator.h"

namespace threads {

using namespace pycoll;

// How the ranks are joined: all share memory; or they are on nodes of these sizes, with messages between all.
struct Shape {
  int ranks;
  std::vector<int> nodes;  // empty: shared memory

  std::string name() const {
    std::string sizes;
    for (const int n : nodes) sizes += concat(" ", n);
    return concat(ranks, " ranks, ", nodes.empty() ? "shared memory" : "messages, nodes of", sizes);
  }
};

inline std::vector<Member> members(int first, int count) {
  std::vector<Member> all;
  for (int i = 0; i < count; ++i) all.push_back({first + i, "loopback", {}});
  return all;
}

// `cores`: 1 is fewer than the ranks, and nobody spins.
inline std::vector<std::shared_ptr<Communicator>> make(const Shape& shape, double timeout = 60, int cores = 1) {
  std::vector<std::shared_ptr<Communicator>> all;
  Options options;
  options.timeout = timeout;
  if (shape.nodes.empty()) {
    const auto segment = Segment::local(ShmTransport::segment_bytes(shape.ranks));
    for (int rank = 0; rank < shape.ranks; ++rank)
      all.push_back(std::make_shared<Communicator>(
          std::make_shared<ShmTransport>(segment, rank, members(0, shape.ranks), cores), nullptr, options));
    return all;
  }
  for (size_t n = 0; n < shape.nodes.size(); ++n)
    options.node_of.insert(options.node_of.end(), size_t(shape.nodes[n]), int(n));
  const auto world = Segment::local(ShmTransport::segment_bytes(shape.ranks));
  int first = 0;
  for (const int ranks : shape.nodes) {
    const auto segment = Segment::local(ShmTransport::segment_bytes(ranks));
    for (int i = 0; i < ranks; ++i)
      all.push_back(std::make_shared<Communicator>(
          std::make_shared<ShmTransport>(segment, i, members(first, ranks), cores),
          std::make_shared<ShmTransport>(world, first + i, members(0, shape.ranks), cores), options));
    first += ranks;
  }
  return all;
}

// Runs body(rank) on a thread each; throws the first rank's error there was.
inline void run(int ranks, const std::function<void(int)>& body) {
  std::vector<std::thread> all;
  std::mutex mutex;
  std::string errors;
  for (int rank = 0; rank < ranks; ++rank)
    all.emplace_back([&, rank] {
      try {
        body(rank);
      } catch (const std::exception& error) {
        const std::lock_guard lock(mutex);
        if (errors.size() < 2000) errors += concat("[rank ", rank, "] ", error.what(), "\n");
      }
    });
  for (std::thread& thread : all) thread.join();
  if (!errors.empty()) throw Error(errors);
}

}  // namespace threads
