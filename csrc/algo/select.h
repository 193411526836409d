// Which algorithm runs: asked for by the call, else by the measured table, else by the shipped default.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "core/signature.h"

namespace pycoll::algo {

enum class Medium : uint8_t { shared, messages };  // memory common to all ranks, or not

// True if `algo` is written for `kind` and can run there.
bool supports(Algo algo, Kind kind, Medium medium);
// For an allreduce of so many bytes over messages, where nothing was measured.
Algo suited(size_t bytes, int ranks);
// Halves are summed in f32 and rounded once by the algorithm itself; for others the caller widens them.
bool rounds_once(Algo algo);
// Throws InvalidArgument, listing what there is.
Algo parse_algo(std::string_view name);
std::vector<std::string> names_for(Kind kind);

// One line of the measured table: `algo` is best for this kind and number of ranks, from `bytes` on.
struct Rule {
  Kind kind;
  Medium medium;
  int ranks;
  size_t bytes;
  Algo algo;
};

struct Question {
  Kind kind;
  DType dtype;
  size_t bytes;  // allreduce, broadcast, reduce: of the array; others: of all ranks' chunks together
  int ranks;
  int nodes;  // over which the ranks are spread
  Medium medium;
};

class Table {
 public:
  Table() = default;
  explicit Table(std::vector<Rule> rules);
  Algo choose(const Question& question) const;

 private:
  std::vector<Rule> rules_;  // by bytes, ascending
};

}  // namespace pycoll::algo
