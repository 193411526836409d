// What a user asked for, validated: one collective or point-to-point operation.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "codec/codec.h"
#include "codec/feedback.h"
#include "core/buffer.h"
#include "core/partition.h"
#include "core/signature.h"

namespace pycoll {

// How an allreduce shrinks its numbers on the way; without a codec it does not.
struct Compression {
  std::shared_ptr<const codec::Codec> codec;
  codec::Feedback* feedback = nullptr;  // as long as the array; null: what is lost is lost
  std::optional<uint64_t> step;         // of random numbers; none: the communicator counts
  bool everywhere = false;              // inside nodes too, where some have several ranks
};

struct Call {
  Kind kind = Kind::none;
  Algo algo = Algo::automatic;
  ReduceOp op = ReduceOp::sum;
  double factor = 1;   // premul_sum
  int root = 0;        // of a rooted kind; the destination of send and sendrecv, the source of recv or kAnySource
  int source = 0;      // of sendrecv
  uint64_t tag = 0;    // of send and recv
  double timeout = 0;  // seconds; 0: the communicator's
  ConstBuffer in;
  Buffer out;
  // Several arrays as one: `in` and `out` are then empty, `pieces_in` and `pieces_out` pair up (in place: they are
  // equal).
  std::vector<ConstBuffer> pieces_in;
  std::vector<Buffer> pieces_out;
  // One chunk a rank, for the kinds that have them; alltoall: what is sent to, and received from, each rank.
  Layout layout, received;
  bool uneven = false;  // the user gave counts
  Compression compression;
  // Where in the user's program; asked for only if ranks disagree.
  std::function<std::string()> site;
};

constexpr bool point_to_point(Kind kind) {
  return kind == Kind::send || kind == Kind::recv || kind == Kind::sendrecv;
}

// Bytes that a rank contributes; the same on every rank, or the most that one does.
inline size_t contribution(const Call& call) {
  const size_t element = size_of(call.in.dtype);
  switch (call.kind) {
    case Kind::allreduce:
    case Kind::reduce: return call.in.bytes();
    case Kind::broadcast: return call.out.bytes();
    case Kind::allgather:
    case Kind::gather: return largest_of(call.layout) * element;
    default: return total_of(call.layout) * element;
  }
}

}  // namespace pycoll
