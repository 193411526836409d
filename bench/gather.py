"""Gather to rank 0, which ends with all ranks' chunks. busbw = algbw x (P-1)/P."""

from functools import partial

from case import Collective, Piece
from harness import main


def pieces(case):
    return [Piece(case.share, begin=rank * case.share, of=rank) for rank in range(case.size)] if case.rank == 0 else []


GATHER = Collective(
    name="gather",
    counts=lambda case: (case.share, case.count if case.rank == 0 else None),
    pycoll=lambda case, send, recv: partial(case.comm.gather, send, recv, 0, **case.options),
    mpi=lambda case, send, recv: partial(case.mpi.Gather, send, recv, 0),
    pieces=pieces,
    busbw=lambda ranks: (ranks - 1) / ranks,
    per_rank=True,
)

if __name__ == "__main__":
    main(GATHER)
