"""Allgather: every rank ends with all ranks' chunks. busbw = algbw x (P-1)/P."""

from functools import partial

from case import Collective, Piece
from harness import main

ALLGATHER = Collective(
    name="allgather",
    counts=lambda case: (case.share, case.count),
    pycoll=lambda case, send, recv: partial(case.comm.allgather, send, recv, **case.options),
    mpi=lambda case, send, recv: partial(case.mpi.Allgather, send, recv),
    pieces=lambda case: [Piece(case.share, begin=rank * case.share, of=rank) for rank in range(case.size)],
    busbw=lambda ranks: (ranks - 1) / ranks,
    per_rank=True,
)

if __name__ == "__main__":
    main(ALLGATHER)
