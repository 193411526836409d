"""Broadcast from rank 0: every rank ends with its array. busbw = algbw."""

from functools import partial

from case import Collective, Piece
from harness import main

BROADCAST = Collective(
    name="broadcast",
    counts=lambda case: (case.count, None),
    pycoll=lambda case, send, _: partial(case.comm.broadcast, send, 0, **case.options),
    mpi=lambda case, send, _: partial(case.mpi.Bcast, send, 0),
    pieces=lambda case: [Piece(case.count, of=0)],
    busbw=lambda ranks: 1,
)

if __name__ == "__main__":
    main(BROADCAST)
