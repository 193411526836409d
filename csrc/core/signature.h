// What a rank called, in 24 bytes that ranks can compare.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "core/dtype.h"
#include "core/error.h"
#include "core/op.h"

namespace pycoll {

enum class Kind : uint8_t {
  none,
  allreduce,
  reduce_scatter,
  allgather,
  broadcast,
  reduce,
  gather,
  scatter,
  alltoall,
  barrier,
  send,
  recv,
  sendrecv
};
inline constexpr int kKinds = 13;

constexpr std::string_view name_of(Kind kind) {
  constexpr std::string_view names[kKinds] = {"nothing", "allreduce", "reduce_scatter", "allgather", "broadcast",
                                              "reduce",  "gather",    "scatter",        "alltoall",  "barrier",
                                              "send",    "recv",      "sendrecv"};
  return names[size_t(kind)];
}

// The source of a receive that takes a message from any rank.
inline constexpr int kAnySource = -1;

// Which kinds reduce, and so have an operator; which have a root.
constexpr bool reduces(Kind k) {
  return k == Kind::allreduce || k == Kind::reduce_scatter || k == Kind::reduce;
}
constexpr bool rooted(Kind k) {
  return k == Kind::broadcast || k == Kind::reduce || k == Kind::gather || k == Kind::scatter;
}

enum class Algo : uint8_t {
  automatic,
  ring,
  tree,
  doubling,
  halving,
  circulant,
  pairwise,
  direct,
  hierarchical,
  dissemination
};
inline constexpr int kAlgos = 10;

constexpr std::string_view name_of(Algo algo) {
  constexpr std::string_view names[kAlgos] = {"auto",      "ring",     "tree",   "doubling",     "halving",
                                              "circulant", "pairwise", "direct", "hierarchical", "dissemination"};
  return names[size_t(algo)];
}

struct Signature {
  Kind kind = Kind::none;
  DType dtype = DType::u8;
  ReduceOp op = ReduceOp::sum;
  Algo algo = Algo::automatic;
  int32_t root = 0;     // or the peer of a send or receive
  uint64_t count = 0;   // elements
  uint64_t detail = 0;  // hash of the counts of a v-form, of an allreduce's codec; tag of a message; 0: none

  bool operator==(const Signature&) const = default;
};
static_assert(sizeof(Signature) == 24);

// "allreduce f32[1024] sum", "broadcast i64[3] root 2", "barrier".
inline std::string describe(const Signature& s) {
  std::string text(name_of(s.kind));
  if (s.kind == Kind::none || s.kind == Kind::barrier) return text;
  text += concat(" ", name_of(s.dtype), "[", s.count, "]");
  if (reduces(s.kind)) text += concat(" ", name_of(s.op));
  if (rooted(s.kind)) text += concat(" root ", s.root);
  if (s.kind == Kind::send || s.kind == Kind::sendrecv) text += concat(" to ", s.root);
  if (s.kind == Kind::recv) text += s.root == kAnySource ? std::string(" from any rank") : concat(" from ", s.root);
  if (s.algo != Algo::automatic) text += concat(" algo ", name_of(s.algo));
  if (s.detail == 0) return text;
  if (s.kind == Kind::send || s.kind == Kind::recv) return text + concat(" tag ", s.detail);
  text += s.kind == Kind::allreduce ? " compressed" : " uneven";
  return text;
}

}  // namespace pycoll
