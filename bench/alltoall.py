"""All-to-all: rank r ends with chunk r of every rank. busbw = algbw x (P-1)/P."""

from functools import partial

from case import Collective, Piece
from harness import main


def pieces(case):
    mine = case.rank * case.share
    return [Piece(case.share, begin=rank * case.share, source=mine, of=rank) for rank in range(case.size)]


ALLTOALL = Collective(
    name="alltoall",
    counts=lambda case: (case.count, case.count),
    pycoll=lambda case, send, recv: partial(case.comm.alltoall, send, recv, **case.options),
    mpi=lambda case, send, recv: partial(case.mpi.Alltoall, send, recv),
    pieces=pieces,
    busbw=lambda ranks: (ranks - 1) / ranks,
    per_rank=True,
)

if __name__ == "__main__":
    main(ALLTOALL)
