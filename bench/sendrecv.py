"""Send to the next rank and receive from the one before, at once. busbw = algbw."""

from functools import partial

from case import Collective, Piece
from harness import main


def around(case):
    return (case.rank + 1) % case.size, (case.rank - 1) % case.size


def pycoll(case, send, recv):
    following, before = around(case)
    return partial(case.comm.sendrecv, send, following, recv, before)


def mpi(case, send, recv):
    following, before = around(case)
    return partial(case.mpi.Sendrecv, send, following, 0, recv, before)


SENDRECV = Collective(
    name="sendrecv",
    counts=lambda case: (case.count, case.count),
    pycoll=pycoll,
    mpi=mpi,
    pieces=lambda case: [Piece(case.count, of=around(case)[1])],
    busbw=lambda ranks: 1,
)

if __name__ == "__main__":
    main(SENDRECV)
