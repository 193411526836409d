"""Barrier: no rank leaves before all have come. No bytes, so one line and no bandwidth."""

from case import Collective
from harness import main

BARRIER = Collective(
    name="barrier",
    counts=lambda case: (None, None),
    pycoll=lambda case, *_: case.comm.barrier,
    mpi=lambda case, *_: case.mpi.Barrier,
    pieces=lambda case: [],
    busbw=lambda ranks: 0,
    has_data=False,
)

if __name__ == "__main__":
    main(BARRIER)
