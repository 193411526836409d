// Two levels: the ranks of a node, and the ranks of equal place ("lane") on all nodes.
#pragma once
#include <algorithm>
#include <vector>

#include "core/partition.h"

namespace pycoll::pattern {

struct Hierarchy {
  std::vector<int> node_of;  // of each rank; any numbers

  std::vector<int> members(int node) const {
    std::vector<int> ranks;
    for (int rank = 0; rank < int(node_of.size()); ++rank)
      if (node_of[size_t(rank)] == node) ranks.push_back(rank);
    return ranks;
  }
  // Each number once, in the order of first ranks.
  std::vector<int> nodes() const {
    std::vector<int> distinct;
    for (const int node : node_of)
      if (std::find(distinct.begin(), distinct.end(), node) == distinct.end()) distinct.push_back(node);
    return distinct;
  }
  // As many as the smallest node has ranks: a chunk of the data each, in the same place on every node.
  int lanes() const {
    size_t fewest = node_of.size();
    for (const int node : nodes()) fewest = std::min(fewest, members(node).size());
    return int(fewest);
  }
  // Rank `lane` of every node.
  std::vector<int> across(int lane) const {
    std::vector<int> ranks;
    for (const int node : nodes()) ranks.push_back(members(node)[size_t(lane)]);
    return ranks;
  }
};

// Chunks for the first `lanes` ranks of a node of `size`; the others own nothing.
inline Layout lane_layout(size_t count, int size, int lanes) {
  Layout layout(size_t(size), Range{count, 0});
  for (size_t lane = 0; lane < size_t(lanes); ++lane) layout[lane] = Partition{count, size_t(lanes)}[lane];
  return layout;
}

}  // namespace pycoll::pattern
