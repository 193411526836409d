"""Scatter from rank 0: rank r ends with its chunk r. busbw = algbw x (P-1)/P."""

from functools import partial

from case import Collective, Piece
from harness import main

SCATTER = Collective(
    name="scatter",
    counts=lambda case: (case.count if case.rank == 0 else None, case.share),
    pycoll=lambda case, send, recv: partial(case.comm.scatter, send, recv, 0, **case.options),
    mpi=lambda case, send, recv: partial(case.mpi.Scatter, send, recv, 0),
    pieces=lambda case: [Piece(case.share, source=case.rank * case.share, of=0)],
    busbw=lambda ranks: (ranks - 1) / ranks,
    per_rank=True,
)

if __name__ == "__main__":
    main(SCATTER)
