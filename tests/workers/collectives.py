"""Every collective x algorithm x element type x operator x count against the oracle; see test_collectives.py.

As a script under a launcher: collectives.py CASE... Every rank prints "RANK CASE ok" or "RANK CASE failed".
"""

from __future__ import annotations

import random
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from oracle import BF16, DTYPES, FACTOR, OPS, defined, equal, reduced, source

import pycoll

REDUCING = ("allreduce", "reduce", "reduce_scatter")
KINDS = (*REDUCING, "broadcast", "allgather", "gather", "scatter", "alltoall")
V_FORMS = ("reduce_scatter", "allgather", "gather", "scatter", "alltoall")
TELLING = [np.dtype(np.float32), BF16]  # float32 and bfloat16 take paths of their own
OF_EACH_SIZE = [*TELLING, *map(np.dtype, ("int8", "float64", "complex128"))]


@dataclass(frozen=True)
class Job:
    kind: str
    algo: str | None
    dtype: np.dtype
    op: str
    count: int  # of the array, or of a rank's chunk
    in_place: bool = False
    counts: tuple[int, ...] | None = None  # v-form
    torch: bool = False  # tensors instead of NumPy arrays


def as_array(x: np.ndarray, job: Job) -> np.ndarray | torch.Tensor:
    if not job.torch:
        return x
    return torch.from_numpy(x.view(np.int16)).view(torch.bfloat16) if x.dtype == BF16 else torch.from_numpy(x)


def as_numpy(x: np.ndarray | torch.Tensor) -> np.ndarray:
    if isinstance(x, np.ndarray):
        return x
    return x.view(torch.int16).numpy().view(BF16) if x.dtype == torch.bfloat16 else x.numpy()


def starts(counts: list[int]) -> list[int]:
    return [sum(counts[:rank]) for rank in range(len(counts))]


def pairs(job: Job, sender: int, size: int) -> list[int]:
    """alltoall: what `sender` sends to each; uneven counts are shifted from rank to rank."""
    return [job.counts[(sender + 2 * to) % size] if job.counts else job.count for to in range(size)]


def run(comm: pycoll.Communicator, job: Job) -> None:
    """Runs one job on this rank and compares its result; what is read only must be as before."""
    rank, size, dtype = comm.rank, comm.size, job.dtype
    root = job.count % size
    counts = list(job.counts or [job.count] * size)
    at, total = starts(counts), sum(counts)
    options: dict = {"algo": job.algo}
    if job.kind in REDUCING:
        options["op"] = job.op
        if job.op == "premul_sum":
            options["factor"] = FACTOR
    if job.counts and job.kind != "alltoall":
        options["counts"] = counts
    if job.kind in ("reduce", "broadcast", "gather", "scatter"):
        options["root"] = root

    def empty(count: int) -> np.ndarray | torch.Tensor:
        return as_array(np.zeros(count, dtype), job)

    wanted: np.ndarray | None = None
    give_out = job.count % 2 == 0  # every other job lets the library allocate
    if job.kind in ("allreduce", "reduce"):
        x = source(rank, job.count, dtype, job.op)
        wanted = reduced(size, job.count, dtype, job.op) if job.kind == "allreduce" or rank == root else None
        if not job.in_place and wanted is not None:
            options["out"] = empty(job.count)
    elif job.kind == "reduce_scatter":
        x = source(rank, total, dtype, job.op)
        wanted = reduced(size, counts[rank], dtype, job.op, at[rank])
        options["out"] = empty(counts[rank]) if give_out else None
    elif job.kind == "broadcast":
        x = source(rank, job.count, dtype)
        wanted = source(root, job.count, dtype)
    elif job.kind in ("allgather", "gather"):
        x = source(rank, counts[rank], dtype)
        if job.kind == "allgather" or rank == root:
            wanted = np.concatenate([source(peer, counts[peer], dtype) for peer in range(size)])
            options["out"] = empty(total) if give_out else None
    elif job.kind == "scatter":
        x = source(root, total if rank == root else 0, dtype)
        wanted = source(root, counts[rank], dtype, start=at[rank])
        options["out"] = empty(counts[rank]) if give_out or rank != root else None
    else:
        to, come = pairs(job, rank, size), [pairs(job, peer, size) for peer in range(size)]
        x = source(rank, sum(to), dtype)
        wanted = np.concatenate([source(p, come[p][rank], dtype, start=starts(come[p])[rank]) for p in range(size)])
        options["out"] = empty(wanted.size) if give_out else None
        if job.counts:
            options |= {"send_counts": to, "recv_counts": [come[p][rank] for p in range(size)]}

    before, changes = x.copy(), job.kind == "broadcast" or (job.in_place and wanted is not None)
    result = getattr(comm, job.kind)(as_array(x, job), **options)
    if wanted is not None:
        assert type(result) is (torch.Tensor if job.torch else np.ndarray), f"{job}: rank {rank} got a {type(result)}"
        if not equal(as_numpy(result), wanted):
            raise AssertionError(f"{job}: rank {rank} of {size} got {as_numpy(result)[:20]}, wanted {wanted[:20]}")
    if not changes:
        assert equal(x, before), f"{job}: rank {rank} of {size}: the input was changed"


def algorithms(comm: pycoll.Communicator, kind: str) -> list[str | None]:
    shares = comm.transport != "mpi"
    return [None] + [name for name in pycoll.algorithms(kind) if shares or name != "direct"]


def each(comm: pycoll.Communicator) -> Iterator[tuple[str, str | None, np.dtype, str]]:
    for kind in KINDS:
        for algo in algorithms(comm, kind):
            for dtype in DTYPES:
                for op in OPS if kind in REDUCING else ("sum",):
                    if defined(op, dtype):
                        yield kind, algo, dtype, op


def matrix(comm: pycoll.Communicator) -> int:
    """Every algorithm with every type and operator; tensors and arrays, in place and out of place.

    An algorithm sees neither the operator nor more of a type than its size: a type of each size, as a sum, takes all
    counts; all else one of them, not 0.
    """
    counts = sorted({0, 1, max(comm.size - 1, 0), comm.size + 1, 1009})
    choose = random.Random(7)  # the same on all ranks
    done = 0
    for kind, algo, dtype, op in each(comm):
        whole = dtype in OF_EACH_SIZE and op == "sum"
        for turn, count in enumerate(counts if whole else [choose.choice(counts[1:])]):
            in_place = turn % 2 == 0 if whole else choose.random() < 0.5
            places = (False, True) if kind in ("allreduce", "reduce") and dtype in TELLING else (in_place,)
            for place in places:
                run(comm, Job(kind, algo, dtype, op, count, place, torch=(done // 2) % 2 == 0))
                done += 1
    return done


def uneven(comm: pycoll.Communicator) -> int:
    """The v-forms: some chunks larger, some empty."""
    counts = tuple(0 if rank % 3 == 2 else 13 + rank for rank in range(comm.size))
    jobs = [(k, a, d, o) for k, a, d, o in each(comm) if k in V_FORMS and o in ("sum", "avg")]
    for done, (kind, algo, dtype, op) in enumerate(jobs):
        run(comm, Job(kind, algo, dtype, op, done, counts=counts, torch=done % 2 == 0))
    return len(jobs)


def large(comm: pycoll.Communicator) -> int:
    """A million elements."""
    done = 0
    for kind in KINDS:
        count = 1_000_000 if kind in ("allreduce", "reduce", "broadcast") else 1_000_000 // comm.size
        for algo in algorithms(comm, kind):
            for dtype in TELLING:
                run(comm, Job(kind, algo, dtype, "sum", count, in_place=done % 2 == 0, torch=done % 3 == 0))
                done += 1
    return done


CASES: dict[str, Callable[[pycoll.Communicator], int]] = {"matrix": matrix, "uneven": uneven, "large": large}

if __name__ == "__main__":
    with pycoll.init(timeout=60) as world:
        for name in sys.argv[1:] or CASES:
            try:
                sys.stdout.write(
                    f"{world.rank} {name} ok: {CASES[name](world)} operations\n"
                )  # one write: lines stay whole
            except BaseException:
                print(f"{world.rank} {name} failed\n{traceback.format_exc()}", flush=True)
                raise
