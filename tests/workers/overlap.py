"""An asynchronous allreduce beside something else, as long by itself; see test_overlap.py.

As a script under a launcher: overlap.py rest|compute private|symmetric ATTEMPTS. Rank 0 prints for every attempt the
seconds of the allreduce alone, of the other alone, of both together.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np

import pycoll

COUNT = 64 << 18  # float32: 64 MiB
TURNS = 9


def slowest(comm: pycoll.Communicator, *acts: Callable[[], object]) -> list[float]:
    """Seconds that the slowest rank needs for each: the least of turns in which all come once. Other work on the
    machine only adds to it, and where it takes a core, none is free."""
    seconds = np.empty((TURNS, len(acts)))
    for turn in seconds:
        for i, act in enumerate(acts):
            comm.barrier()
            begin = time.perf_counter()
            act()
            turn[i] = time.perf_counter() - begin
    return comm.allreduce(seconds, "max").min(axis=0).tolist()


def resting(seconds: float) -> Callable[[], None]:
    return lambda: time.sleep(seconds)


def computing(seconds: float) -> Callable[[], None]:
    """Products of matrices that stay in the cache, by one thread, about so many seconds of them."""
    a = np.full((256, 256), 1 / 256, np.float32)

    def compute(rounds: int) -> None:
        for _ in range(rounds):
            a @ a

    compute(10)
    begin = time.perf_counter()
    compute(100)
    rounds = max(1, round(seconds / (time.perf_counter() - begin) * 100))
    return lambda: compute(rounds)


def main(comm: pycoll.Communicator, other: str, memory: str, attempts: int) -> None:
    x = comm.empty(COUNT) if memory == "symmetric" else np.empty(COUNT, np.float32)
    x.fill(comm.rank + 1)
    mean = (comm.size + 1) / 2

    def begin() -> pycoll.Work:
        return comm.allreduce(x, "avg", wait=False)

    def communicate() -> None:
        begin().wait()

    def both() -> None:
        work = begin()
        act()
        work.wait()

    for _ in range(attempts):
        (seconds,) = slowest(comm, communicate)
        act = (resting if other == "rest" else computing)(seconds)
        line = " ".join(map(str, slowest(comm, communicate, act, both))) + "\n"
        if comm.rank == 0:
            sys.stdout.write(line)
    assert (x == mean).all(), f"rank {comm.rank} got {x}, wanted {mean}"


if __name__ == "__main__":
    with pycoll.init(timeout=60) as world:
        main(world, sys.argv[1], sys.argv[2], int(sys.argv[3]))
