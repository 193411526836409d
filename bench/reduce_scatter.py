"""Reduce-scatter: rank r ends with chunk r of the reduction. busbw = algbw x (P-1)/P."""

from functools import partial

from case import Collective, Piece
from harness import main

REDUCE_SCATTER = Collective(
    name="reduce_scatter",
    counts=lambda case: (case.count, case.share),
    pycoll=lambda case, send, recv: partial(case.comm.reduce_scatter, send, recv, case.op, **case.options),
    mpi=lambda case, send, recv: partial(case.mpi.Reduce_scatter_block, send, recv, case.mpi_op),
    pieces=lambda case: [Piece(case.share, source=case.rank * case.share)],
    busbw=lambda ranks: (ranks - 1) / ranks,
    reduces=True,
    per_rank=True,
)

if __name__ == "__main__":
    main(REDUCE_SCATTER)
