"""Reduce to rank 0, which ends with the reduction of all ranks' arrays. busbw = algbw."""

from functools import partial

from case import Collective, Piece
from harness import main


def counts(case):
    return case.count, case.count if case.rank == 0 else None


REDUCE = Collective(
    name="reduce",
    counts=counts,
    pycoll=lambda case, send, recv: partial(case.comm.reduce, send, case.op, 0, out=recv, **case.options),
    mpi=lambda case, send, recv: partial(case.mpi.Reduce, send, recv, case.mpi_op, 0),
    pieces=lambda case: [Piece(case.count)] if case.rank == 0 else [],
    busbw=lambda ranks: 1,
    reduces=True,
)

if __name__ == "__main__":
    main(REDUCE)
