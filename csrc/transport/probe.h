// What this machine's cores are like to one another, found out by trying: a flag there and back, then the same bytes
// brought to the other rank in each of the ways there are. Ranks move between cores, so it is tried again now and then.
#pragma once
#include <cstdint>
#include <string>

namespace pycoll {

struct Findings {
  float flag_ns = 0;      // one way, to the farthest rank; 0: never probed
  float ordinary_us = 0;  // kProbedBytes both ways through the stages, by each kind of store
  float streaming_us = 0;
  float single_copy_us = 0;  // the same, each reading the other's private memory; 0: not permitted
  bool streams = false;      // into stages
  bool single_copy = false;  // for large private arrays
};

// "flag 26 ns away; 32 KiB staged 2.1 us by ordinary stores, 4.0 us by streaming, ..."
std::string describe(const Findings& findings);

}  // namespace pycoll
