"""One rank of a Python contestant: "rank.py mpi4py|gloo|pycoll". What bench/native/block.h does, from Python."""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

BLOCK_SECONDS = 60  # a rank that is longer in a block ends, also when nobody is left to end it


class Mpi4py:
    def __init__(self) -> None:
        import mpi4py
        from mpi4py import MPI

        self._mpi, self._world = MPI, MPI.COMM_WORLD
        self.rank, self.size = self._world.rank, self._world.size
        self.version = f"mpi4py {mpi4py.__version__}, {MPI.Get_library_version().splitlines()[0]}"
        self.barrier = self._world.Barrier

    def array(self, count: int, memory: str) -> Any:
        return np.empty(count, np.float32)

    def calls(self, x: Any, out: Any) -> dict[str, Callable[[], Any]]:
        world, in_place, total = self._world, self._mpi.IN_PLACE, self._mpi.SUM
        return {
            "allreduce": lambda: world.Allreduce(in_place, x, total),
            "reduce_scatter": lambda: world.Reduce_scatter_block(x, out, total),
            "allgather": lambda: world.Allgather(x, out),
            "broadcast": lambda: world.Bcast(x),
            "alltoall": lambda: world.Alltoall(x, out),
        }


class Gloo:
    def __init__(self) -> None:
        import torch
        import torch.distributed as dist

        torch.set_num_threads(1)
        dist.init_process_group("gloo")
        self._torch, self._dist = torch, dist
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.version = f"torch {torch.__version__}"
        self.barrier = dist.barrier

    def array(self, count: int, memory: str) -> Any:
        return self._torch.empty(count, dtype=self._torch.float32)

    def calls(self, x: Any, out: Any) -> dict[str, Callable[[], Any]]:
        dist = self._dist
        return {
            "allreduce": lambda: dist.all_reduce(x),
            "reduce_scatter": lambda: dist.reduce_scatter_tensor(out, x),
            "allgather": lambda: dist.all_gather_into_tensor(out, x),
            "broadcast": lambda: dist.broadcast(x, 0),
            "alltoall": lambda: dist.all_to_all_single(out, x),
        }


class Pycoll:
    def __init__(self) -> None:
        import pycoll

        self._comm = comm = pycoll.init()
        self.rank, self.size = comm.rank, comm.size
        self.version = f"pycoll {pycoll.__version__}"
        self.barrier = comm.barrier

    def array(self, count: int, memory: str) -> Any:
        return self._comm.empty(count, np.float32) if memory == "symmetric" else np.empty(count, np.float32)

    def calls(self, x: Any, out: Any) -> dict[str, Callable[[], Any]]:
        comm = self._comm
        return {
            "allreduce": lambda: comm.allreduce(x),
            "reduce_scatter": lambda: comm.reduce_scatter(x, out),
            "allgather": lambda: comm.allgather(x, out),
            "broadcast": lambda: comm.broadcast(x),
            "alltoall": lambda: comm.alltoall(x, out),
        }


LIBRARIES = {"mpi4py": Mpi4py, "gloo": Gloo, "pycoll": Pycoll}


def input_of(rank: int, begin: int, count: int) -> np.ndarray:
    index = np.arange(begin, begin + count, dtype=np.int32)
    return (index % 251 + 256 * rank).astype(np.float32)


def expected(collective: str, rank: int, size: int, count: int) -> np.ndarray:
    """What must be in this rank's result of `count` elements."""
    total = np.float32(256 * size * (size - 1) // 2)
    if collective == "allreduce":
        return size * input_of(0, 0, count) + total
    if collective == "reduce_scatter":
        return size * input_of(0, rank * count, count) + total
    if collective == "broadcast":
        return input_of(0, 0, count)
    share = count // size
    begin = rank * share if collective == "alltoall" else 0
    return np.concatenate([input_of(peer, begin, share) for peer in range(size)])


def time_samples(call: Callable[[], Any], before: Callable[[], Any], samples: int, batch: int) -> list[int]:
    """When each batch began and ended, nanoseconds of the clock that all processes share; before() is not timed."""
    clock, batches, times = time.monotonic_ns, range(batch), [0] * (2 * samples)
    gc.disable()
    for sample in range(0, 2 * samples, 2):
        before()
        times[sample] = clock()
        for _ in batches:
            call()
        times[sample + 1] = clock()
    gc.enable()
    return times


def run_block(library: Any, order: str) -> str:
    collective, *words = order.split()
    memory = words.pop(1)
    nbytes, warmup, samples, batch, touch = (int(word) for word in words)
    whole, share = nbytes // 4, nbytes // 4 // library.size
    x = library.array(share if collective == "allgather" else whole, memory)
    in_place = collective in ("allreduce", "broadcast")
    out = x if in_place else library.array(share if collective == "reduce_scatter" else whole, memory)
    source, result = np.asarray(x), np.asarray(out)
    given = input_of(library.rank, 0, source.size)
    call = library.calls(x, out)[collective]

    def fill() -> None:
        source[:] = given

    def fill_and_meet() -> None:
        fill()
        library.barrier()

    fill()
    if not in_place:
        result[:] = 0
    for _ in range(warmup):
        call()
    times = time_samples(call, fill_and_meet if touch else library.barrier, samples, batch)
    fill()
    if not in_place:
        result[:] = 0
    library.barrier()
    call()
    wrong = int((result != expected(collective, library.rank, library.size, result.size)).sum())
    library.barrier()
    return " ".join(str(number) for number in ["done", wrong, *times])


def bind(rank: int, size: int) -> None:
    cores = [int(core) for core in os.environ["PEERS_CORES"].split(",")]
    os.sched_setaffinity(0, [cores[rank]] if len(cores) >= size else cores)


def main() -> None:
    folder = Path(os.environ["PEERS_FOLDER"])
    library = LIBRARIES[sys.argv[1]]()
    with (
        open(folder / f"order.{library.rank}") as orders,
        open(folder / f"answer.{library.rank}", "w", buffering=1) as answers,
    ):
        bind(library.rank, library.size)
        print("ready", os.getpid(), library.version, file=answers)
        for order in orders:
            signal.alarm(BLOCK_SECONDS)
            try:
                answer = run_block(library, order)
            except Exception as error:
                print("error", f"{type(error).__name__}: {error}".replace("\n", " ")[:500], file=answers)
                raise
            signal.alarm(0)
            print(answer, file=answers)


if __name__ == "__main__":
    main()
