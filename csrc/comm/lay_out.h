// Completes and checks the counts of a call: which chunk belongs to whom.
#pragma once
#include <optional>
#include <vector>

#include "comm/call.h"

namespace pycoll {

// `counts`: one a rank, in elements; none: even. For alltoall `counts` is what this rank sends, `received_counts` what
// it receives. Fills call.layout and call.received; throws InvalidArgument where arrays and counts do not fit together.
void lay_out(Call& call, int rank, int size, const std::optional<std::vector<size_t>>& counts,
             const std::optional<std::vector<size_t>>& received_counts);

}  // namespace pycoll
