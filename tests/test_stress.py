"""Many mixed operations, two communicators, two threads in each process; and communication beside computing."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
from forked import run_forked
from launch import available, run_ranks
from workers import stress

OPERATIONS = int(os.environ.get("PYCOLL_STRESS", "100000"))
mpi = [pytest.mark.mpi, pytest.mark.skipif(not available("mpi"), reason="no mpirun")]


def test_shared_memory():
    ended = run_forked(2, lambda comm: stress.run(comm, OPERATIONS), timeout=400, op_timeout=60)
    for rank, one in enumerate(ended):
        assert one.code == 0, one.output
        assert f"{rank} done" in one.output


@pytest.mark.parametrize(("launcher", "n"), [pytest.param("mpi", 2, marks=mpi), pytest.param("shm", 3, marks=mpi)])
def test_launched(launcher, n):
    run = run_ranks(Path(stress.__file__), n, launcher, [str(OPERATIONS // 10)], timeout=300)
    assert run.ok, run
    assert all(f"{rank} done" in run.stdout for rank in range(n))
    assert run.leftovers == []


def overlap(comm):
    """Nobody waits for it: the engine's thread alone brings it to its end, while this one computes."""
    x = np.full(4_000_000, comm.rank + 1.0)
    a = np.ones((200, 200))
    for algo in ("ring", None):
        x.fill(comm.rank + 1)
        work = comm.allreduce(x, algo=algo, wait=False)
        limit, rounds = time.monotonic() + 20, 0
        while not work.done():
            assert time.monotonic() < limit, "it makes no progress unless waited for"
            a = (a @ a) / 200
            rounds += 1
        assert rounds > 0
        assert (x == comm.size * (comm.size + 1) / 2).all()
        assert np.allclose(a, 1)


def test_operations_go_on_beside_computing():
    for one in run_forked(2, overlap):
        assert one.code == 0, one.output
