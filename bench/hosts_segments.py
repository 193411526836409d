"""How to cut a long message: an exchange of 32 MiB each way between two hosts, by segment and number under way.

    sudo .venv/bin/python bench/hosts_segments.py [RATE]      prints Gbit/s of payload each way; RATE is 1gbit

Plain MPI_Isend and MPI_Irecv, tested in the order posted, as a transport does. Segments and depth of
csrc/transport/mpi.cc come from here.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools" / "hosts"))

from hosts import Hosts, missing  # noqa: E402

BYTES = 32 << 20
SEGMENTS = (15, 30, 60, 128, 256, 1024, 4096)  # KiB
DEPTHS = (2, 4, 16, 64)
TURNS = 3


def exchange(segment: int, depth: int) -> float:
    """Seconds, of the slower rank."""
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    peer, sent, landing = 1 - comm.rank, np.ones(BYTES, np.uint8), np.empty(BYTES, np.uint8)
    taken = []
    for _ in range(TURNS):
        comm.Barrier()
        begin, flights = time.perf_counter(), []
        for at in range(0, BYTES, segment):
            if len(flights) == depth:
                finish(flights.pop(0))
            part = slice(at, at + segment)
            flights.append((comm.Irecv(landing[part], peer), comm.Isend(sent[part], peer)))
        for flight in flights:
            finish(flight)
        taken.append(comm.allreduce(time.perf_counter() - begin, MPI.MAX))
    return sorted(taken)[TURNS // 2]


def finish(flight) -> None:
    for request in flight:
        while not request.Test():
            os.sched_yield()  # the kernel's own threads that deliver packets share the cores


def rank() -> None:
    from mpi4py import MPI

    for segment in SEGMENTS:
        times = [exchange(segment << 10, depth) for depth in DEPTHS]
        if MPI.COMM_WORLD.rank == 0:
            cells = (f"{BYTES * 8 / seconds / 1e9:>9.3f}" for seconds in times)
            print(f"{segment:>6} KiB {''.join(cells)}", flush=True)


def main(rate: str) -> None:
    if why := missing():
        sys.exit(f"bench/hosts_segments.py: {why}")
    with Hosts(2, rate) as hosts:
        worker = [sys.executable, str(Path(__file__).resolve()), "--rank"]
        result = hosts.run(hosts.ranks(Path(sys.prefix), 1, worker), 300)
    print(f"# {rate}; under way: {', '.join(map(str, DEPTHS))}\n{result.stdout}", end="")
    if result.returncode != 0:
        sys.exit(result.stderr)


if __name__ == "__main__":
    if sys.argv[1:] == ["--rank"]:
        rank()
    else:
        main(*(sys.argv[1:] or ["1gbit"]))
