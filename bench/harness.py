"""Measures a collective over ranks: what bench/allreduce.py and its neighbours share. They declare, this measures.

    mpirun -n 2 python bench/allreduce.py --sizes 8:64M --peer mpi4py --json out.json

A *sample* is the time of a batch of back-to-back calls, divided by their number, on the slowest rank. All ranks enter a
batch through a barrier that is not timed. Batches are long enough (20 us) for the clock not to count. With a peer, both
run in the same processes, in turn: pycoll, mpi4py, pycoll, ..., so that they meet the same moods of the machine.

Columns, named as in nccl-tests:
    size     bytes of the larger of a rank's two arrays      time     us, median over rounds of each round's median
    count    elements in it                                  algbw    size / time, GB/s
    type     element type                                    busbw    algbw x the collective's factor (see its file)
    redop    reduction                                       #wrong   elements of all ranks that are off by more than
    p50 p99  us, of all samples                                       rounding explains; "-" if not checked
    wire     bytes that a rank sends in one call (most over ranks), read from peers' memory in place included
    error    largest |result - float64 oracle|               mpi4py   its time, us
    ratio    mpi4py's time / pycoll's, median over rounds: above 1, pycoll is faster

The oracle does not communicate: every rank's input is a function of (rank, index), so each rank knows all of them.

--json FILE writes (version 1; numbers are null where something was not measured):
    {"schema": "pycoll-bench/1",
     "environment": {"machine", "cores", "python", "numpy", "pycoll", "simd", "compiler", "mpi", "mpi4py", "ranks",
                     "transport", "time" (UTC, ISO 8601)},
     "settings": {the command line's, with defaults},
     "results": [{"collective", "bytes", "count", "dtype", "op", "batch" (calls a sample), "samples", "rounds",
                  "time_us", "algbw_gbs", "busbw_gbs", "p50_us", "p99_us", "wire_bytes",
                  "wrong", "checked" (elements, over all ranks), "max_error",
                  "peer": null | {"name", "time_us", "p50_us", "p99_us", "wrong", "max_error", "ratio"}}]}
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

# One thread a rank: the arithmetic libraries' own threads would measure themselves.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from case import CHECK_CHUNK, Case, Collective, check, fill
from options import parse
from table import environment_of, header, row

import pycoll

BATCH_NS = 20_000  # the shortest batch worth timing


def time_batches(call: Callable[[], Any], barrier: Callable[[], Any], samples: int, batch: int) -> np.ndarray:
    """Nanoseconds of each of `samples` batches on this rank."""
    clock = time.perf_counter_ns
    batches = range(batch)
    taken = [0] * samples
    enabled = gc.isenabled()
    gc.disable()
    for sample in range(samples):
        barrier()
        begin = clock()
        for _ in batches:
            call()
        taken[sample] = clock() - begin
    if enabled:
        gc.enable()
    return np.array(taken, np.float64)


@dataclass
class Contestant:
    name: str
    call: Callable[[], Any]
    array: Any  # where the result is
    source: Any  # the input
    batch: int = 1
    samples: int = 1
    rounds: list[np.ndarray] = field(default_factory=list)  # us a call, slowest rank

    def calibrate(self, bench: Bench) -> None:
        """Chooses calls a batch and batches a round, alike on all ranks; warms up as it goes."""
        arguments = bench.arguments
        for _ in range(arguments.warmup):
            self.call()
        once = bench.slowest(time_batches(self.call, bench.comm.barrier, 5, 1)).min()
        if once < 10 * BATCH_NS:  # a single call's time is mostly skew between ranks
            once = bench.slowest(time_batches(self.call, bench.comm.barrier, 3, 32)).min() / 32
        if arguments.iterations == "auto":
            calls = max(arguments.rounds * 3, arguments.seconds * 1e9 / max(once, 1.0))
        else:
            calls = int(arguments.iterations)
        self.batch = max(1, min(int(np.ceil(BATCH_NS / max(once, 1.0))), int(calls) // arguments.rounds))
        self.samples = max(1, int(calls / arguments.rounds / self.batch))

    def run_round(self, bench: Bench, case: Case) -> None:
        if self.source is not None and len(self.source) <= CHECK_CHUNK:
            fill(case, self.source)  # or sums in place grow without end
        self.call()
        taken = bench.slowest(time_batches(self.call, bench.comm.barrier, self.samples, self.batch))
        self.rounds.append(taken / (1e3 * self.batch))

    @property
    def time(self) -> float:
        return float(np.median([np.median(taken) for taken in self.rounds]))

    def percentile(self, q: float) -> float:
        return float(np.percentile(np.concatenate(self.rounds), q))


class Bench:
    def __init__(self, collective: Collective, arguments: argparse.Namespace) -> None:
        self.collective = collective
        self.arguments = arguments
        self.comm = pycoll.init()
        self.peer = _peer(self.comm, arguments)

    def slowest(self, taken: np.ndarray) -> np.ndarray:
        """For each sample, the time of the rank that took longest."""
        self.comm.allreduce(taken, op="max")
        return taken

    def total(self, *values: float) -> list[float]:
        totals = np.array(values, np.float64)
        self.comm.allreduce(totals)
        return totals.tolist()

    def largest(self, value: float) -> float:
        worst = np.array([value], np.float64)
        self.comm.allreduce(worst, op="max")
        return float(worst[0])

    def measure(self, size: int) -> dict[str, Any]:
        collective, arguments, comm = self.collective, self.arguments, self.comm
        itemsize = 2 if arguments.dtype == "bfloat16" else np.dtype(arguments.dtype).itemsize
        count = max(1, size // itemsize) if collective.has_data else 0
        if collective.per_rank and count:
            count = max(1, count // comm.size) * comm.size
        options = {"algo": arguments.algo} if arguments.algo else {}
        case = Case(comm, self.peer, count, arguments.dtype, arguments.op, options)

        contestants = [self._contestant(case, "pycoll")]
        if self.peer is not None:
            contestants.append(self._contestant(case, "mpi4py"))
        verdicts = {c.name: self._check(case, c) for c in contestants}
        wire = self._wire_bytes(contestants[0])
        for contestant in contestants:
            contestant.calibrate(self)
        for _ in range(arguments.rounds):
            for contestant in contestants:
                contestant.run_round(self, case)

        ours = contestants[0]
        bandwidth = count * itemsize / ours.time / 1e3
        wrong, checked, error = verdicts["pycoll"]
        result = {
            "collective": collective.name,
            "bytes": count * itemsize,
            "count": count,
            "dtype": arguments.dtype,
            "op": arguments.op if collective.reduces else None,
            "batch": ours.batch,
            "samples": ours.samples * len(ours.rounds),
            "rounds": len(ours.rounds),
            "time_us": ours.time,
            "algbw_gbs": bandwidth,
            "busbw_gbs": bandwidth * collective.busbw(comm.size),
            "p50_us": ours.percentile(50),
            "p99_us": ours.percentile(99),
            "wire_bytes": wire,
            "wrong": wrong,
            "checked": checked,
            "max_error": error,
            "peer": None,
        }
        if self.peer is not None:
            theirs = contestants[1]
            ratios = [np.median(b) / np.median(a) for a, b in zip(ours.rounds, theirs.rounds, strict=True)]
            result["peer"] = {
                "name": "mpi4py",
                "time_us": theirs.time,
                "p50_us": theirs.percentile(50),
                "p99_us": theirs.percentile(99),
                "wrong": verdicts["mpi4py"][0],
                "max_error": verdicts["mpi4py"][2],
                "ratio": float(np.median(ratios)),
            }
        return result

    def _contestant(self, case: Case, name: str) -> Contestant:
        send_count, recv_count = self.collective.counts(case)
        symmetric = name == "pycoll" and self.arguments.symmetric
        send, recv = (self._array(case, count, symmetric) for count in (send_count, recv_count))
        if send is not None:
            fill(case, send)
        if recv is not None:
            recv[:] = 0
        declare = self.collective.pycoll if name == "pycoll" else self.collective.mpi
        return Contestant(name, declare(case, send, recv), send if recv is None else recv, send)

    def _array(self, case: Case, count: int | None, symmetric: bool) -> Any:
        dtype: Any = case.dtype
        if dtype == "bfloat16":
            import torch

            dtype = torch.bfloat16
        if symmetric:  # collective: every rank calls it, also where only the root needs the memory
            array = case.comm.empty(count or 0, dtype if dtype is not case.dtype else np.dtype(dtype))
            return None if count is None else array
        if count is None:
            return None
        return np.empty(count, dtype) if isinstance(dtype, str) else torch.empty(count, dtype=dtype)

    def _check(self, case: Case, contestant: Contestant) -> tuple[int | None, int | None, float | None]:
        if self.arguments.no_check or not self.collective.has_data:
            contestant.call()
            return None, None, None
        contestant.call()
        wrong, checked, error = check(case, self.collective, contestant.array)
        wrong, checked = (int(value) for value in self.total(wrong, checked))
        return wrong, checked, self.largest(error)

    def _wire_bytes(self, contestant: Contestant) -> int:
        calls = 3
        before = self.comm.stats()["wire_bytes"]
        for _ in range(calls):
            contestant.call()
        return int(self.largest((self.comm.stats()["wire_bytes"] - before) / calls))


def _peer(comm: Any, arguments: argparse.Namespace) -> Any:
    """mpi4py's communicator, or None where there is nothing to compare with."""
    impossible = None
    if importlib.util.find_spec("mpi4py") is None:
        impossible = "mpi4py is not installed"
    elif arguments.dtype in ("float16", "bfloat16") or arguments.op == "avg":
        impossible = f"MPI has no {'avg' if arguments.op == 'avg' else arguments.dtype}"
    elif comm.transport == "alone" or "TORCHELASTIC_RUN_ID" in os.environ:
        impossible = "ranks were not started by MPI"
    if arguments.peer == "none" or (arguments.peer is None and impossible):
        return None
    if impossible:
        sys.exit(f"--peer mpi4py: {impossible}")
    from mpi4py import MPI

    return MPI.COMM_WORLD


def main(collective: Collective) -> None:
    arguments = parse(collective)
    bench = Bench(collective, arguments)
    say = print if bench.comm.rank == 0 else lambda *_, **__: None
    environment = environment_of(bench)
    header(say, bench, environment)
    results = []
    failed = False
    for size in arguments.sizes if collective.has_data else [0]:
        result = bench.measure(size)
        results.append(result)
        say(row(result, bench), flush=True)
        peer = result["peer"]
        failed |= bool(result["wrong"]) or bool(peer and peer["wrong"])
    if bench.comm.rank == 0 and arguments.json:
        settings = {key: value for key, value in vars(arguments).items() if key != "json"}
        document = {"schema": "pycoll-bench/1", "environment": environment, "settings": settings, "results": results}
        with open(arguments.json, "w") as file:
            json.dump(document, file, indent=1)
            file.write("\n")
    bench.comm.close()
    if failed:
        sys.exit("wrong results: see the column #wrong")
