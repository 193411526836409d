"""Tiny tasks a second: pycoll.TaskPool beside mpi4py.futures, on the same ranks in turn.

    make bench-pool
    mpirun -n 3 python bench/task_pool.py --json out/task-pool.json

Rank 0 is the master of both. Each result is checked. mpi4py's map is measured at its default (a task a message) and in
chunks; pycoll's chooses its own.

--json FILE writes {"schema": "pycoll-task-pool/1", "environment": {...}, "settings": {...}, "results": [{"way",
"tasks_a_second": [...]}]}.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

from table import environment_of

import pycoll


def square(x: int) -> int:
    return x * x


def submitted(pool, count: int) -> list[int]:
    return [future.result() for future in [pool.submit(square, i) for i in range(count)]]


WAYS: dict[str, tuple[str, Callable]] = {
    "pycoll map": ("pycoll", lambda pool, count: list(pool.map(square, range(count)))),
    "pycoll submit": ("pycoll", submitted),
    "mpi4py map": ("mpi4py", lambda pool, count: list(pool.map(square, range(count)))),
    "mpi4py map, chunks of 1000": ("mpi4py", lambda pool, count: list(pool.map(square, range(count), chunksize=1000))),
    "mpi4py submit": ("mpi4py", submitted),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    comm = pycoll.init()
    from mpi4py.futures import MPICommExecutor

    pools = {"pycoll": lambda: pycoll.TaskPool(comm), "mpi4py": lambda: MPICommExecutor(comm.mpi, root=0)}
    rates: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(options.rounds):
        for name, (library, way) in WAYS.items():
            comm.barrier()
            with pools[library]() as pool:
                if comm.rank == 0:
                    way(pool, 1000)
                    begin = time.perf_counter()
                    results = way(pool, options.tasks)
                    rates[name].append(options.tasks / (time.perf_counter() - begin))
                    assert results == [i * i for i in range(options.tasks)], name
    if comm.rank:
        return
    environment = environment_of(SimpleNamespace(comm=comm, peer="mpi4py"))
    versions = f"pycoll {environment['pycoll']}, mpi4py {environment['mpi4py']}, {environment['mpi']}"
    print(f"{comm.size - 1} workers, {options.tasks} tasks; {versions}")
    for name, rate in rates.items():
        print(f"{name:28} {statistics.median(rate):10,.0f} a second  ({min(rate):,.0f} to {max(rate):,.0f})")
    if options.json:
        settings = {"tasks": options.tasks, "rounds": options.rounds}
        results = [{"way": name, "tasks_a_second": rate} for name, rate in rates.items()]
        document = {"schema": "pycoll-task-pool/1", "environment": environment, "settings": settings}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(document | {"results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
