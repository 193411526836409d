"""`pycoll tune`: measures every algorithm of every collective here and writes the choices that pycoll.init() loads.

Under mpirun or `pycoll run` it measures those ranks; alone it starts `-n` ranks itself. The table is
~/.config/pycoll/tuned.json (XDG_CONFIG_HOME and PYCOLL_TUNED are heeded):

    {"version": 1, "entries": [{"collective": "allreduce", "transport": "shm", "ranks": 2, "bytes": 65536,
                                "algo": "direct", "seconds": 4.1e-06}, ...]}

`bytes` is what the call's cost grows with: the array of allreduce, broadcast and reduce; all chunks together of
reduce_scatter (in), allgather and gather (out), scatter (in), alltoall (what one rank sends). `seconds` is for
one call: median over batches, slowest rank. An algorithm holds from its `bytes` up to the next entry's. What the file
says of other numbers of ranks and transports stays in it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

from pycoll.launcher import mpi_launcher, store_launcher
from pycoll.settings import tuned_path

from . import launch

# Closer to each other than this is noise.
TIE = 0.97
ROUNDS = 7
Call = Callable[[str | None], object]


class Row(NamedTuple):
    """One choice; `default` and `seconds` are seconds a call by default and as chosen."""

    kind: str
    bytes: int
    default: float
    algo: str
    seconds: float


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("tune", help="measure the algorithms here", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("-n", "--ranks", type=int, default=2, help="ranks to start where no launcher did (default 2)")
    add("--collectives", default="", metavar="A,B", help="default: all that have a choice")
    add("--least", type=int, default=64, metavar="BYTES", help="smallest size (64)")
    add("--most", type=int, default=16 << 20, metavar="BYTES", help="largest size (default 16 MiB)")
    add("--factor", type=int, default=4, help="from one size to the next (default 4)")
    add("--seconds", type=float, default=0.1, help="time for one measurement (default 0.1)")
    add("--output", type=Path, default=tuned_path(), help="default %(default)s")
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    if not (mpi_launcher() or store_launcher()):
        return start(args)
    import pycoll

    # The shipped defaults are measured, not an earlier table's choices.
    os.environ["PYCOLL_TUNED"] = os.devnull
    os.environ.pop("PYCOLL_ALGO", None)
    with pycoll.init() as comm:
        rows = measure_all(comm, pycoll.algorithms, args)
        if comm.rank == 0:
            show(rows)
            write(args.output, rows, comm.transport, comm.size)
            print(f"{len(rows)} choices for {comm.size} ranks over {comm.transport}, written to {args.output}")
    return 0


def start(args: argparse.Namespace) -> int:
    """The same command under `pycoll run`."""
    options = ["--collectives", args.collectives, "--output", str(args.output.resolve())]
    for name in ("least", "most", "factor", "seconds"):
        options += [f"--{name}", str(getattr(args, name))]
    parser = argparse.ArgumentParser()
    launch.add_parser(parser.add_subparsers())
    run = parser.parse_args(["run", "-n", str(args.ranks), "-m", "pycoll.cli", "tune", *options])
    return launch.main(run)


def calls(comm: Any, count: int) -> dict[str, Call]:
    """One call of each collective with `count` float32 elements a chunk, by name; its argument is algo=."""
    import numpy as np

    part: Any = np.zeros(count, np.float32)
    full, out = np.zeros(count * comm.size, np.float32), np.zeros(count * comm.size, np.float32)
    return {
        "allreduce": lambda algo: comm.allreduce(full, algo=algo),
        "reduce_scatter": lambda algo: comm.reduce_scatter(full, part, algo=algo),
        "allgather": lambda algo: comm.allgather(part, out, algo=algo),
        "broadcast": lambda algo: comm.broadcast(full, algo=algo),
        "reduce": lambda algo: comm.reduce(full, algo=algo),
        "gather": lambda algo: comm.gather(part, out if comm.rank == 0 else None, algo=algo),
        "scatter": lambda algo: comm.scatter(full if comm.rank == 0 else None, part, algo=algo),
        "alltoall": lambda algo: comm.alltoall(full, out, algo=algo),
    }


def slowest(comm: Any, seconds: float) -> float:
    import numpy as np

    return float(comm.allreduce(np.array([seconds]), "max")[0])


def measure(comm: Any, call: Call, names: Sequence[str | None], seconds: float) -> dict[str | None, float]:
    """Seconds a call, by algorithm (None: the default): median over batches, slowest rank.

    All take turns, batch by batch, so that they meet the same moods of the machine.
    """
    from pycoll import InvalidArgument

    batches: dict[str | None, int] = {}
    times: dict[str | None, list[float]] = {}
    for name in names:
        try:
            call(name)
        except InvalidArgument:  # not on this transport, and so on no rank: "direct" without shared memory
            continue
        first = slowest(comm, time_batch(comm, partial(call, name), 3))
        batches[name] = max(1, min(5000, int(seconds / ROUNDS / max(first, 1e-7))))
    for _ in range(ROUNDS):
        for name, count in batches.items():
            times.setdefault(name, []).append(time_batch(comm, partial(call, name), count))
    return {name: slowest(comm, statistics.median(samples)) for name, samples in times.items()}


def time_batch(comm: Any, call: Callable[[], object], count: int) -> float:
    """Seconds a call, of `count` in a row."""
    comm.barrier()
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) / count


def sizes(args: argparse.Namespace, ranks: int) -> list[int]:
    """Bytes that all ranks' float32 chunks have together."""
    found, size = [], max(args.least, 4 * ranks)
    while size <= args.most:
        found.append(size // (4 * ranks) * (4 * ranks))
        size *= max(2, args.factor)
    return found


def measure_all(comm: Any, algorithms: Callable[[str], list[str]], args: argparse.Namespace) -> list[Row]:
    """Every collective at every size, on all ranks alike."""
    rows: list[Row] = []
    chosen: dict[str, str] = {}
    for size in sizes(args, comm.size):
        for kind, call in calls(comm, size // 4 // comm.size).items():
            names = algorithms(kind)
            if len(names) < 2 or (args.collectives and kind not in args.collectives.split(",")):
                continue
            if comm.rank == 0 and sys.stderr.isatty():
                print(f"\r{kind:15}{size:>12} bytes", end="", file=sys.stderr, flush=True)
            times = measure(comm, call, [None, *names], args.seconds)
            default = times.pop(None)
            best = str(min(times, key=times.__getitem__))
            before = chosen.get(kind, best)
            if times.get(before, inf) * TIE < times[best]:  # the smaller size's choice stays where it is as good
                best = before
            chosen[kind] = best
            rows.append(Row(kind, size, default, best, times[best]))
    return rows


def show(rows: list[Row]) -> None:
    """The choices beside the defaults."""
    print(f"{'collective':15}{'bytes':>12}{'default µs':>13}{'choice µs':>13}{'gain':>7}  choice")
    for row in sorted(rows):
        gain = f"{row.default / row.seconds:.2f}x"
        print(f"{row.kind:15}{row.bytes:>12}{row.default * 1e6:>13.1f}{row.seconds * 1e6:>13.1f}{gain:>7}  {row.algo}")


def write(path: Path, rows: list[Row], transport: str, ranks: int) -> None:
    """Replaces what the file says of this transport and number of ranks, at once or not at all."""
    try:
        old = json.loads(path.read_text())["entries"]
    except (OSError, ValueError, KeyError):
        old = []
    key = {"transport": transport, "ranks": ranks}
    new = [{"collective": r.kind, **key, "bytes": r.bytes, "algo": r.algo, "seconds": r.seconds} for r in sorted(rows)]
    kept = [entry for entry in old if (entry["transport"], entry["ranks"]) != (transport, ranks)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        json.dump({"version": 1, "entries": [*kept, *new]}, file, indent=1)
    Path(file.name).replace(path)
