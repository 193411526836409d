"""send, recv and sendrecv: alone, in flight together, beside collectives; see test_collectives.py."""

from __future__ import annotations

import sys

import numpy as np
from cases import NEXT, PREV, RANK, SIZE, case, comm, main, raises, ramp, total

import pycoll

BIG = 700_000  # float64 elements: more bytes than all slots between two ranks hold


@case
def messages():
    if SIZE == 1:
        return
    for count in (0, 1, 1009, BIG):
        x, y = ramp(RANK, count), np.zeros(count)
        assert comm.sendrecv(x, NEXT, y, PREV) is y
        assert np.array_equal(y, ramp(PREV, count)), count
        # All send first, then receive.
        y = np.zeros(count)
        sending = comm.send(x, NEXT, wait=False)
        comm.recv(y, PREV)
        sending.wait()
        assert np.array_equal(y, ramp(PREV, count)), count
        # All post the receive first, then send, blocking: by whichever thread that is.
        for _ in range(10):
            y = np.zeros(count)
            receiving = comm.recv(y, PREV, wait=False)
            comm.send(x, NEXT)
            assert np.array_equal(receiving.result(), ramp(PREV, count)), count
    token = np.zeros(1)
    if RANK:
        comm.recv(token, PREV)
    token += RANK
    comm.send(token, NEXT)
    if not RANK:
        comm.recv(token, PREV)
        assert token == SIZE * (SIZE - 1) / 2


@case
def messages_in_flight():
    """Several between the same two ranks at once: they arrive in the order sent, whatever the order of waiting."""
    if SIZE == 1:
        return
    counts = [5, BIG, 0, 1009, 70_000, 1]
    arrays = [np.zeros(n) for n in counts]
    receiving = [comm.recv(y, PREV, wait=False) for y in arrays[:-1]]
    sending = [comm.send(ramp(RANK + i, n), NEXT, wait=False) for i, n in enumerate(counts)]
    comm.recv(arrays[-1], PREV)  # blocking, behind those under way
    for work in reversed(receiving + sending):
        work.wait()
    for i, n in enumerate(counts):
        assert np.array_equal(arrays[i], ramp(PREV + i, n)), i
    works = [comm.sendrecv(ramp(RANK + i, n), NEXT, np.zeros(n), PREV, wait=False) for i, n in enumerate(counts)]
    assert all(
        np.array_equal(w.result(), ramp(PREV + i, n)) for (i, n), w in zip(enumerate(counts), works, strict=True)
    )


@case
def messages_beside_collectives():
    """A receive posted before a collective, whose message is sent before it by a rank that blocks in send."""
    if SIZE == 1:
        return
    for count in (10, BIG):
        y = np.zeros(count)
        if RANK == 0:
            work = comm.recv(y, SIZE - 1, wait=False)
        elif RANK == SIZE - 1:
            comm.send(ramp(3, count), 0)
        x = comm.allreduce(ramp(RANK, 1009))
        assert np.array_equal(x, total(1009))
        if RANK == 0:
            assert np.array_equal(work.result(), ramp(3, count)), count


@case
def messages_with_tags():
    """Received in another order than sent; and from whoever sends."""
    if SIZE == 1:
        return
    counts = [5, BIG, 0, 1009]
    sending = [comm.send(ramp(RANK + n, n), NEXT, tag=n, wait=False) for n in counts]
    for n in reversed(counts):
        y = np.zeros(n)
        comm.recv(y, PREV, tag=n)
        assert np.array_equal(y, ramp(PREV + n, n)), n
    for work in sending:
        work.wait()
    comm.barrier()
    if RANK:
        comm.send(ramp(RANK, 1009), 0, tag=3)
    else:
        places = [np.zeros(1009) for _ in range(SIZE - 1)]
        works = [comm.recv(y, None, tag=3, wait=False) for y in places]
        for work in works:
            work.wait()
        assert sorted(work.source for work in works) == list(range(1, SIZE))
        assert all(np.array_equal(y, ramp(work.source, 1009)) for y, work in zip(places, works, strict=True))
        raises(pycoll.InvalidArgument, "wait=False", lambda: comm.recv(places[0], None))
    comm.barrier()
    # A message that does not fit is put aside, and is its receive's error.
    work = comm.send(np.zeros(3), NEXT, tag=1, wait=False)
    comm.sendrecv(np.zeros(2), NEXT, np.zeros(2), PREV)
    raises(pycoll.MismatchError, "send f64[3]", lambda: comm.recv(np.zeros(4), PREV, tag=1))
    work.wait()


if __name__ == "__main__":
    main(sys.argv[1:])
