// What follows from the arguments of a collective: worked out once, and kept for the calls that repeat them.
#pragma once
#include "comm/call.h"

namespace pycoll {

struct Plan {
  // The arguments.
  Kind kind = Kind::none;
  Algo asked = Algo::automatic;
  ReduceOp op = ReduceOp::sum;
  DType in_dtype = DType::u8, out_dtype = DType::u8;
  bool uneven = false;
  int root = 0;
  size_t in_count = 0, out_count = 0;
  Layout layout;

  Signature signature;
  Algo algo = Algo::automatic;
  bool encoded = false;                // numbers travel as a codec has them; such a plan fits no second call
  bool premul = false, widen = false;  // the input is scaled, or halves are summed as f32, in scratch memory
  bool eager = false;                  // over shared memory each rank shows its whole input on arrival ...
  bool in_cell = false;                // ... which is so short that it lies beside the signature
  size_t bytes = 0;                    // a rank contributes

  bool fits(const Call& call) const {
    return !encoded && !call.compression.codec && kind == call.kind && asked == call.algo && op == call.op &&
           in_dtype == call.in.dtype && out_dtype == call.out.dtype && uneven == call.uneven && root == call.root &&
           in_count == call.in.count && out_count == call.out.count && call.pieces_in.empty() && layout == call.layout;
  }
};

}  // namespace pycoll
