"""What a communicator does beside single blocking collectives; see test_collectives.py. communicator.py CASE..."""

from __future__ import annotations

import array
import sys
import time

import numpy as np
import torch
from cases import RANK, SIZE, case, comm, main, raises, ramp, total

import pycoll


@case
def lists():
    shapes = [(3,), (0,), (5, 7), (1009,), ()]

    def arrays(rank):
        return [np.full(shape, rank + i + 1.0) for i, shape in enumerate(shapes)]

    wanted = [np.full(s, sum(r + i + 1.0 for r in range(SIZE))) for i, s in enumerate(shapes)]
    for algo in [None, "ring", "tree"]:
        x = arrays(RANK)
        assert comm.allreduce(x, algo=algo) is x
        assert all(np.array_equal(a, b) for a, b in zip(x, wanted, strict=True))
    x, out = arrays(RANK), [np.zeros(shape) for shape in shapes]
    assert comm.allreduce(tuple(x), out=out) is out
    assert all(np.array_equal(a, b) for a, b in zip(out, wanted, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(x, arrays(RANK), strict=True)), "the input was changed"
    x, root = arrays(RANK), SIZE - 1
    comm.reduce(x, root=root)
    assert all(np.array_equal(a, b) for a, b in zip(x, wanted if root == RANK else arrays(RANK), strict=True))
    x = [torch.from_numpy(a) for a in arrays(RANK)]
    comm.broadcast(x, root=root)
    assert all(np.array_equal(a.numpy(), b) for a, b in zip(x, arrays(root), strict=True))


@case
def buffers():
    x = array.array("d", [1.0, 2.0])
    comm.allreduce(x)
    assert list(x) == [1.0 * SIZE, 2.0 * SIZE]
    y = bytearray([1, 2, 3])
    comm.allreduce(memoryview(y))
    assert y == bytearray([SIZE, 2 * SIZE, 3 * SIZE])
    assert comm.allgather(bytes([RANK])).tolist() == list(range(SIZE))

    class OnlyDlpack:  # as of a library that knows neither NumPy nor torch
        def __init__(self, x):
            self.x = x

        def __dlpack__(self, **options):
            return self.x.__dlpack__(**options)

    z = torch.arange(12.0).reshape(3, 4).to(torch.bfloat16)
    comm.allreduce(OnlyDlpack(z), "max")
    assert z.flatten().tolist() == list(range(12))
    scalar = np.array(RANK, np.int64)
    comm.allreduce(scalar)
    assert scalar == SIZE * (SIZE - 1) // 2
    assert comm.allgather(np.full((2, 3), RANK)).shape == (2 * SIZE, 3)


@case
def asynchronous():
    counts = [1, 1009, 0, 200_000, 5] * 4
    works = [comm.allreduce(ramp(RANK, n), wait=False) for n in counts]
    works.append(comm.barrier(wait=False))
    last = comm.allreduce(ramp(RANK, 33))  # a blocking call waits its turn
    assert all(work.done() for work in works)
    for work, n in zip(works, counts, strict=False):
        assert work.exception() is None
        work.wait(timeout=5)
        assert np.array_equal(work.result(), total(n))
    assert np.array_equal(last, total(33))
    gathered = comm.allgather(ramp(RANK, 3), wait=False)
    shared = comm.broadcast(ramp(RANK, 50), root=SIZE - 1, wait=False)
    mine = comm.scatter(ramp(0, SIZE), out=np.zeros(1), wait=False)  # ramp() lives on in the Work alone
    assert np.array_equal(gathered.result(), np.concatenate([ramp(r, 3) for r in range(SIZE)]))
    assert np.array_equal(shared.result(), ramp(SIZE - 1, 50))
    assert mine.result()[0] == RANK
    if SIZE > 1:
        if RANK == 0:
            waiting = comm.barrier(wait=False)
            raises(pycoll.Timeout, "it goes on", lambda: waiting.wait(timeout=0.05))
            assert not waiting.done()
            waiting.wait()
        else:
            time.sleep(0.3)
            comm.barrier()


@case
def symmetric():
    for dtype, count in [(np.float32, 1009), (np.int64, 1), (np.float64, 0), (np.float32, 300_000)]:
        x = comm.empty(count, dtype)
        assert x.shape == (count,) and x.dtype == dtype and x.flags.writeable and not x.any()
        for algo in [None, "ring"]:
            x[:] = ramp(RANK, count, dtype)
            comm.allreduce(x, algo=algo)
            assert np.array_equal(x, total(count, dtype))
        x[:] = ramp(RANK, count, dtype)
        assert np.array_equal(comm.allgather(x), np.concatenate([ramp(r, count, dtype) for r in range(SIZE)]))
        comm.broadcast(x, root=SIZE - 1)
        assert np.array_equal(x, ramp(SIZE - 1, count, dtype))
    for chunk in [3, 40_000]:  # short, and read in place
        x = comm.empty(chunk * SIZE, np.float32)
        x[:] = ramp(RANK, chunk * SIZE, np.float32)
        inputs = [ramp(r, chunk * SIZE, np.float32).reshape(SIZE, chunk) for r in range(SIZE)]
        assert np.array_equal(comm.alltoall(x), np.concatenate([given[RANK] for given in inputs]))
        root = SIZE - 1
        assert np.array_equal(
            comm.scatter(x if root == RANK else None, np.empty(chunk, np.float32), root=root), inputs[root][RANK]
        )
        gathered, summed = comm.gather(x[:chunk], root=root), comm.reduce(x, out=np.empty_like(x), root=root)
        if root == RANK:
            assert np.array_equal(gathered, np.concatenate([given[0] for given in inputs]))
            assert np.array_equal(summed, total(chunk * SIZE, np.float32))
    both = comm.empty((2, 5 * SIZE), np.int32)  # parts of an array, at different places
    both[0], both[1] = RANK, 7
    comm.allreduce(both[0], out=both[1])
    assert (both[1] == SIZE * (SIZE - 1) // 2).all() and (both[0] == RANK).all()
    chunk = comm.reduce_scatter(both[0], both[1, :5])
    assert (chunk == SIZE * (SIZE - 1) // 2).all()
    t = comm.empty((3, 333), torch.bfloat16)
    assert isinstance(t, torch.Tensor) and t.shape == (3, 333) and t.dtype == torch.bfloat16
    t.fill_(RANK + 1)
    comm.allreduce(t, "avg")
    assert (t.float() == (SIZE + 1) / 2).all()
    private = np.zeros(333 * 3, np.float32)  # one rank's array is symmetric, the others' are not
    y = comm.empty(333 * 3, np.float32) if SIZE else None
    z = y if RANK == 0 else private
    z[:] = RANK
    comm.allreduce(z)
    assert (z == SIZE * (SIZE - 1) / 2).all()
    for _ in range(50):  # dropped and allocated anew, at once: memory of peers must not be reused early
        x = comm.empty(5000, np.float32)
        x.fill(1)
        work = comm.allreduce(x, wait=False)
        del x
        assert (work.result() == SIZE).all()


@case
def groups():
    half = comm.split(RANK % 2, key=-RANK)
    members = [r for r in reversed(range(SIZE)) if r % 2 == RANK % 2]
    assert (half.rank, half.size) == (members.index(RANK), len(members))
    assert half.allgather(np.array([RANK])).tolist() == members
    only = comm.split(0 if RANK == SIZE - 1 else None)
    assert (only is None) == (SIZE - 1 != RANK)
    if only is not None:
        assert only.size == 1 and only.transport == "alone"
        assert only.allreduce(np.ones(3)).sum() == 3
    with comm.dup() as twin:
        assert (twin.rank, twin.size, twin.transport) == (RANK, SIZE, comm.transport)
        a, b = twin.allreduce(ramp(RANK, 50_000), wait=False), comm.allreduce(ramp(RANK, 9), wait=False)
        assert np.array_equal(b.result(), total(9)) and np.array_equal(a.result(), total(50_000))
        inner = twin.split(0)  # of a copy, of a copy
        x = inner.empty(10, np.float64)
        x.fill(RANK)
        assert (inner.allreduce(x) == SIZE * (SIZE - 1) / 2).all()
        inner.close()
        inner.close()
    assert twin.closed and not comm.closed
    raises(pycoll.InvalidArgument, "closed", lambda: twin.allreduce(np.ones(1)))
    half.close()
    assert np.array_equal(comm.allreduce(ramp(RANK, 5)), total(5))


@case
def with_mpi4py():
    if comm.transport == "alone" and SIZE == 1:
        return
    from mpi4py import MPI

    assert (comm.mpi.rank, comm.mpi.size) == (RANK, SIZE)
    assert comm.mpi.allreduce(RANK) == SIZE * (SIZE - 1) // 2
    part = MPI.COMM_WORLD.Split(RANK % 2, -RANK)
    ours = pycoll.Communicator.from_mpi(part, timeout=10)
    assert (ours.rank, ours.size, ours.timeout) == (part.rank, part.size, 10)
    assert ours.allgather(np.array([RANK])).tolist() == part.allgather(RANK)
    assert ours.mpi.allgather(RANK) == part.allgather(RANK)
    twin = ours.dup()
    assert twin.mpi.allgather(RANK) == part.allgather(RANK)
    work = comm.allreduce(ramp(RANK, 100_000), wait=False)  # both libraries at once
    assert comm.mpi.allreduce(1) == SIZE
    assert np.array_equal(work.result(), total(100_000))
    twin.close()
    ours.close()


@case
def groups_in_time():
    """Making an MPI group ends with its deadline also where a rank does not come."""
    mpi = comm._mpi_module
    if mpi is None or SIZE == 1:
        return
    group = (mpi.world(), list(range(SIZE)), 7)
    if RANK == 0:
        raises(pycoll.Timeout, "MPI_Comm_create_group", lambda: mpi.create_group(*group, 0.2))
    comm.barrier()
    if RANK != 0:  # they come late, so that rank 0's call ends, and MPI can be left
        mpi.create_group(*group, 10)


@case
def stats():
    before = comm.stats()
    assert set(before) == {"operations", "wire_bytes", "failures"}
    count = 1000 * SIZE
    comm.allreduce(np.zeros(count, np.float32), algo="ring")
    after = comm.stats()
    assert after["operations"] == before["operations"] + 1
    sent = after["wire_bytes"] - before["wire_bytes"]
    own = 2 * 4 * count * (SIZE - 1) // SIZE  # the ring's 2 S (P-1)/P
    # ceil(log2 P) rounds of one byte and a signature: csrc/algo/dissemination.cc, csrc/core/signature.h.
    agreeing = (1 + 24) * (SIZE - 1).bit_length() if comm.transport == "mpi" else 0
    assert sent == own + agreeing, (sent, own, agreeing)
    if SIZE > 1:
        raises(pycoll.MismatchError, "called", lambda: comm.allreduce(np.zeros(RANK + 1)))
        assert comm.stats()["failures"] == after["failures"] + 1
    assert np.array_equal(comm.allreduce(ramp(RANK, 5)), total(5))


if __name__ == "__main__":
    main(sys.argv[1:])
