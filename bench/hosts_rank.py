"""One rank of bench/hosts.py: in-place float32 allreduce by pycoll and by MPI itself, in turn. Rank 0 prints JSON.

    hosts_rank.py SIZES ALGORITHMS SECONDS      e.g. 65536,1048576 auto,ring 1.5

A line a size: {"bytes", "wrong" (elements, over all contestants and ranks), "us": {contestant: median over turns of the
slowest rank's time of a call}}. Contestants are "mpi" and "pycoll ALGORITHM"; those that cannot run here are left out.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from mpi4py import MPI

import pycoll

TURNS = 5


def check(call: Callable[[np.ndarray], object], count: int, rank: int, size: int) -> int:
    """Wrong elements of one call. Inputs are small integers, so that the sum is exact in any order."""
    index = np.arange(count, dtype=np.int64)
    x = ((index + 3 * rank) % 101).astype(np.float32)
    call(x)
    return int(np.count_nonzero(x != sum(((index + 3 * peer) % 101) for peer in range(size))))


def turn(call: Callable[[np.ndarray], object], x: np.ndarray, calls: int) -> float:
    """Microseconds a call, of the slowest rank. `x` is zero, and stays so."""
    MPI.COMM_WORLD.Barrier()
    begin = time.perf_counter()
    for _ in range(calls):
        call(x)
    taken = (time.perf_counter() - begin) / calls * 1e6
    return MPI.COMM_WORLD.allreduce(taken, MPI.MAX)


def main(sizes: list[int], algorithms: list[str], seconds: float) -> None:
    comm, mpi = pycoll.init(), MPI.COMM_WORLD
    for nbytes in sizes:
        x = np.zeros(nbytes // 4, np.float32)
        contestants: dict[str, Callable[[np.ndarray], object]] = {
            "mpi": lambda x: mpi.Allreduce(MPI.IN_PLACE, x, MPI.SUM)
        }
        for name in algorithms:
            call = partial(comm.allreduce, algo=None if name == "auto" else name)
            try:
                call(x)
            except pycoll.InvalidArgument:  # not over this transport, and so on no rank
                continue
            contestants[f"pycoll {name}"] = call
        wrong = sum(check(call, x.size, comm.rank, comm.size) for call in contestants.values())
        # The second call: the first one opened connections.
        calls = {name: max(1, int(seconds / TURNS / (turn(call, x, 1) / 1e6))) for name, call in contestants.items()}
        times: dict[str, list[float]] = {name: [] for name in contestants}
        for _ in range(TURNS):
            for name, call in contestants.items():
                times[name].append(turn(call, x, calls[name]))
        wrong = mpi.allreduce(wrong)
        if comm.rank == 0:
            medians = {name: round(statistics.median(samples), 2) for name, samples in times.items()}
            print(json.dumps({"bytes": nbytes, "wrong": wrong, "us": medians}), flush=True)
    comm.close()


if __name__ == "__main__":
    main([int(size) for size in sys.argv[1].split(",")], sys.argv[2].split(","), float(sys.argv[3]))
