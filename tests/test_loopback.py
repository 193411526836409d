"""pycoll.loopback: ranks that are threads of this process."""

import threading
import time

import numpy as np
import pytest

import pycoll
from pycoll import loopback


def everything(comm):
    x = np.full(1000, comm.rank + 1, np.float32)
    comm.allreduce(x)
    half = comm.split(comm.rank % 2)
    shared = comm.empty(5000)
    shared[:] = comm.rank
    comm.allreduce(shared)
    return comm.rank, x[-1], half.allgather(np.array([comm.rank])).tolist(), shared[-1], threading.current_thread().name


@pytest.mark.parametrize("size", [1, 2, 5, 16])
def test_ranks(size):
    for rank, result in enumerate(loopback.run(size, everything, timeout=60)):
        half = list(range(rank % 2, size, 2))
        assert result == (rank, size * (size + 1) / 2, half, size * (size - 1) / 2, f"rank {rank}")


def test_the_first_error_is_raised():
    def fail(comm):
        if comm.rank == 1:
            raise ValueError("what rank 1 said")
        with pytest.raises(pycoll.PeerFailed, match="what rank 1 said"):
            comm.allreduce(np.ones(3))

    with pytest.raises(ValueError, match="what rank 1 said"):
        loopback.run(3, fail, timeout=30)


def test_what_was_split_from_a_communicator_fails_with_it():
    """Systems talk on duplicates; none of their ranks waits there, until its deadline, for one that has failed."""

    def fail(comm):
        kept = comm.dup().split(0)
        if comm.rank == 1:
            raise ValueError("what rank 1 said")
        kept.barrier()

    begin = time.monotonic()
    with pytest.raises(ValueError, match="what rank 1 said"):
        loopback.run(3, fail, timeout=30)
    assert time.monotonic() - begin < 10


def test_a_rank_that_returns_early_leaves():
    def leave(comm):
        if comm.rank == 0:
            comm.allreduce(np.ones(3))

    with pytest.raises(pycoll.PeerFailed):
        loopback.run(2, leave, timeout=30)


@pytest.mark.parametrize("size", [0, True, 1.5])
def test_size(size):
    with pytest.raises(pycoll.InvalidArgument, match=f"size is {size}"):
        loopback.run(size, everything)


def test_statistics_have_messages_that_do_not_wait_once_they_are_done():
    def talk(comm):
        other, counts = 1 - comm.rank, (0, 10, 100_000)
        before, seen = comm.stats(), []
        for count in counts:
            place = np.empty(count, np.float32)
            works = [comm.recv(place, other, wait=False), comm.send(np.ones(count, np.float32), other, wait=False)]
            for work in works:
                work.wait()
            seen.append({name: number - before[name] for name, number in comm.stats().items()})
        refused = comm.recv(np.empty(3), other, wait=False)
        comm.send(np.empty(2), other)
        with pytest.raises(pycoll.MismatchError):
            refused.wait()
        return seen, comm.stats()["failures"] - before["failures"]

    for seen, failures in loopback.run(2, talk, timeout=30):
        bytes = np.cumsum([32 + 4 * count for count in (0, 10, 100_000)])  # headers: docs/wire.md
        assert seen == [{"operations": 2 * (i + 1), "wire_bytes": bytes[i], "failures": 0} for i in range(3)]
        assert failures == 1
