"""How ranks start and end; see test_bootstrap.py.

As a script, under a launcher or alone: start.py CASE prints "RANK of SIZE CASE ok TRANSPORT".
"""

from __future__ import annotations

import os
import signal
import sys
import time

import numpy as np


def works(comm):
    assert comm.allreduce(np.full(1000, comm.rank, np.int64))[0] == comm.size * (comm.size - 1) // 2


def plain():
    """Idempotent; what does not fit the first call is said."""
    import pycoll

    comm = pycoll.init(timeout=20)
    works(comm)
    assert pycoll.init() is comm and pycoll.init(timeout=20) is comm and pycoll.init(transport="auto") is comm
    for bad, words in [({"timeout": 7}, "timeout of 20.0 s, wanted 7"), ({"transport": "ring"}, "wanted ring")]:
        try:
            pycoll.init(**bad)
        except pycoll.InvalidArgument as error:
            assert words in str(error), error
        else:
            raise AssertionError(bad)
    assert len(set(comm.hosts)) == 1 and len(comm.hosts) == comm.size
    assert (comm.node_rank, comm.node_size) == (comm.rank, comm.size)
    comm.close()
    assert comm.closed
    again = pycoll.init()  # closed: a new world
    assert again is not comm
    works(again)
    return again


def mpi4py_before():
    from mpi4py import MPI

    import pycoll

    comm = pycoll.init(timeout=20)
    works(comm)
    assert (comm.rank, comm.size) == (MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size)
    assert comm.mpi.allreduce(1) == comm.size
    return comm


def mpi4py_after():
    import pycoll

    comm = pycoll.init(timeout=20)
    works(comm)
    from mpi4py import MPI

    assert MPI.COMM_WORLD.allreduce(1) == comm.size
    works(comm)
    return comm


def begin():
    import pycoll

    comm = pycoll.init(timeout=20)
    comm.big = comm.empty(1_000_000, np.float32)  # segments of both sorts
    works(comm)
    return comm


def raises():
    comm = begin()
    if comm.rank == 1:
        raise ZeroDivisionError("rank 1's own")
    comm.barrier()
    raise AssertionError("nothing was raised")


def killed():
    comm = begin()
    if comm.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    started = time.monotonic()
    try:
        while True:
            comm.allreduce(comm.big)
    finally:
        print(f"{comm.rank} raised after {time.monotonic() - started:.2f} s", flush=True)


def silent():
    """Rank 1 never comes to init: the others are not left waiting."""
    if int(os.environ.get("RANK", "0")) == 1:
        time.sleep(6)
        return None
    import pycoll

    return pycoll.init(timeout=2)


if __name__ == "__main__":
    comm = globals()[sys.argv[1]]()
    if comm is not None:
        print(f"{comm.rank} of {comm.size} {sys.argv[1]} ok {comm.transport}", flush=True)
