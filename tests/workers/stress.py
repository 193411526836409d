"""Operations of random kinds and sizes from several threads, each with a communicator of its own; see test_stress.py.

All values are small integers, so every result is exact, and what it must be is computed on the spot.
"""

from __future__ import annotations

import random
import sys
import threading
from pathlib import Path

import numpy as np

import pycoll

THREADS = 2
MOST = 16 << 10  # elements of float32: 64 KiB
IN_FLIGHT = 8
WARM = 0.2  # of the operations: until then memory may grow
# What may lie in the allocators of a rank that keeps nothing: for each thread what is in flight and what it checks,
# input and result, and as much again for what fragments.
SLACK = 2 * THREADS * (IN_FLIGHT + 1) * 2 * 4 * MOST


def resident() -> int:
    """Bytes of private memory that this process has in RAM; what ranks share is not a rank's own."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("RssAnon:")[1].split()[0])


class Stress:
    """One thread's operations. `choose` is seeded alike on all ranks."""

    def __init__(self, comm: pycoll.Communicator, seed: int) -> None:
        self.comm, self.choose = comm, random.Random(seed)
        self.ramp = np.arange(MOST, dtype=np.float32) % 13
        self.flying: list[tuple[pycoll.Work, np.ndarray]] = []

    def of(self, rank: int, count: int) -> np.ndarray:
        return self.ramp[:count] + np.float32(rank)

    def check(self, got: np.ndarray, wanted: np.ndarray, kind: str) -> None:
        if not np.array_equal(got, wanted):
            raise AssertionError(f"{kind}: rank {self.comm.rank} got {got[:8]}, wanted {wanted[:8]}")

    def land(self) -> None:
        for work, wanted in self.flying:
            self.check(work.result(), wanted, "async")
        self.flying.clear()

    def step(self) -> None:
        comm, choose, of = self.comm, self.choose, self.of
        rank, size = comm.rank, comm.size
        count = choose.choice([0, 1, 7, 100, 100, 1000, 5000, MOST // size])
        root, kind = choose.randrange(size), choose.randrange(11)
        x = of(rank, count)
        summed = self.ramp[:count] * np.float32(size) + np.float32(size * (size - 1) / 2)
        if kind <= 2:
            algo = choose.choice([None, None, "ring", "tree", "doubling", "halving", "circulant", "pairwise"])
            if choose.random() < 0.5:
                self.flying.append((comm.allreduce(x, algo=algo, wait=False), summed))
            else:
                self.check(comm.allreduce(x, algo=algo), summed, f"allreduce {algo}")
        elif kind == 3:
            self.flying.append((comm.broadcast(x, root, wait=False), of(root, count)))
        elif kind == 4:
            got = comm.reduce(x, root=root)
            self.check(got, summed if rank == root else of(rank, count), "reduce")
        elif kind == 5:
            self.check(comm.allgather(x), np.concatenate([of(p, count) for p in range(size)]), "allgather")
        elif kind == 6:
            whole = np.tile(x, size)
            self.check(comm.reduce_scatter(whole), summed, "reduce_scatter")
            self.check(comm.alltoall(whole), np.concatenate([of(p, count) for p in range(size)]), "alltoall")
        elif kind == 7:
            whole = comm.gather(x, root=root)
            self.check(comm.scatter(whole, np.empty(count, np.float32), root), of(rank, count), "gather and scatter")
        elif kind == 8:
            y = np.empty(count, np.float32)
            self.check(comm.sendrecv(x, (rank + 1) % size, y, (rank - 1) % size), of((rank - 1) % size, count), "ring")
        elif kind == 9:
            y = np.empty(count, np.float32)
            self.flying.append((comm.recv(y, (rank - 1) % size, wait=False), of((rank - 1) % size, count)))
            self.flying.append((comm.send(x, (rank + 1) % size, wait=False), of(rank, count)))
        elif choose.random() < 0.02:
            y = comm.empty(count, np.float32)
            y[:] = x
            self.check(comm.allreduce(y), summed, "symmetric allreduce")
        else:
            comm.barrier()
        if len(self.flying) >= IN_FLIGHT - 1 or choose.random() < 0.1:
            self.land()


def run(comm: pycoll.Communicator, operations: int) -> None:
    """`operations` of them, by THREADS threads; prints how much memory they cost."""
    comms = [comm] + [comm.dup() for _ in range(THREADS - 1)]
    errors: list[BaseException] = []

    def work(index: int, stress: Stress, steps: int) -> None:
        try:
            for _ in range(steps):
                stress.step()
                if errors:
                    return
            stress.land()
        except BaseException as error:
            errors.append(error)

    def together(steps: int) -> None:
        threads = [threading.Thread(target=work, args=(i, s, steps)) for i, s in enumerate(all_stress)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]

    all_stress = [Stress(c, seed) for seed, c in enumerate(comms)]
    warm = int(operations * WARM) // THREADS
    together(warm)
    before = resident()
    together(operations // THREADS - warm)
    grown = resident() - before
    print(f"{comm.rank} done: {grown} bytes more, {SLACK} allowed", flush=True)
    assert grown <= SLACK, f"rank {comm.rank} grew by {grown} bytes over {operations} operations, allowed {SLACK}"


if __name__ == "__main__":
    with pycoll.init(timeout=60) as world:
        run(world, int(sys.argv[1]))
