// What one array's compression leaves to the next step: what was not sent, and how the last step went.
#pragma once
#include <cstddef>
#include <cstdint>

#include "core/buffer.h"
#include "kernels/topk.h"

namespace pycoll::codec {

// One compressed operation on this rank.
struct Report {
  double encode = 0, wire = 0, decode = 0;  // seconds; wire: sending, and waiting for what comes
  uint64_t wire_bytes = 0;                  // sent, headers included
  uint64_t sent = 0;                        // elements that this rank's payloads carried
  uint64_t kept = 0;                        // elements of the result that are carried by payloads; `count` if dense
  uint64_t dense_payloads = 0;              // sparse chunks that were cheaper dense
};

// Error feedback: p = x + residual is sent, and residual becomes what the result lacks of it.
struct Feedback {
  float* residual = nullptr;  // `count` elements; null: what is lost is lost, or is in `stored`
  Buffer stored;              // the residual if it is kept in halves: widened for an operation, and rounded after it
  size_t count = 0;
  kernels::TopkState topk;
  Report report;
};

}  // namespace pycoll::codec
