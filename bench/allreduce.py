"""Allreduce, in place: every rank ends with the reduction of all ranks' arrays. busbw = algbw x 2(P-1)/P."""

from functools import partial

from case import Collective, Piece
from harness import main


def mpi(case, send, _):
    from mpi4py import MPI

    return partial(case.mpi.Allreduce, MPI.IN_PLACE, send, case.mpi_op)


ALLREDUCE = Collective(
    name="allreduce",
    counts=lambda case: (case.count, None),
    pycoll=lambda case, send, _: partial(case.comm.allreduce, send, case.op, **case.options),
    mpi=mpi,
    pieces=lambda case: [Piece(case.count)],
    busbw=lambda ranks: 2 * (ranks - 1) / ranks,
    reduces=True,
)

if __name__ == "__main__":
    main(ALLREDUCE)
