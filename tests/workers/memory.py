"""What a rank's memory is made of, printed as one line of JSON: see test_memory.py.

As a script under a launcher: memory.py shared, or memory.py growth OPERATIONS.
"""

from __future__ import annotations

import ctypes
import json
import re
import sys
from pathlib import Path

import numpy as np
from stress import resident

import pycoll

SIZES = [1 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 8 << 20, 64 << 20]  # bytes of the larger of input and result
PR_SET_THP_DISABLE = 41


def say(comm: pycoll.Communicator, **facts: int) -> None:
    sys.stdout.write(json.dumps({"rank": comm.rank, **facts}) + "\n")


def small_pages() -> None:
    """From here on the kernel gives this process no huge pages, which look like use of what was never touched."""
    ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)


def shared_memory() -> dict[str, int]:
    """Of all mappings of pycoll's segments: address space, pages that this process sees in RAM, and its share of those
    (a page that two see counts half for each, so that shares add up to what there is)."""
    bytes_of = dict.fromkeys(("Size", "Rss", "Pss"), 0)
    wanted = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            wanted = "memfd:pycoll" in line
        elif wanted and (entry := re.fullmatch(r"(\w+): +(\d+) kB", line)) and entry[1] in bytes_of:
            bytes_of[entry[1]] += 1024 * int(entry[2])
    return bytes_of


def everything(comm: pycoll.Communicator, count: int) -> None:
    """Every operation by every algorithm, `count` bytes in the larger of its two arrays."""
    part = np.zeros(count // comm.size, np.uint8)
    whole = np.zeros(count, np.uint8)
    for kind, x, out in [
        ("allreduce", whole, {}),
        ("reduce", whole, {}),
        ("broadcast", whole, {}),
        ("reduce_scatter", whole, {"out": part}),
        ("scatter", whole, {"out": part}),
        ("allgather", part, {"out": whole}),
        ("gather", part, {"out": whole}),
        ("alltoall", whole, {"out": np.empty_like(whole)}),
    ]:
        for algo in [None, *pycoll.algorithms(kind)]:
            getattr(comm, kind)(x, algo=algo, **out)
    comm.sendrecv(whole, (comm.rank + 1) % comm.size, np.empty_like(whole), (comm.rank - 1) % comm.size)
    comm.barrier()


def shared(comm: pycoll.Communicator) -> None:
    for count in SIZES:
        everything(comm, count)
    comm.barrier()  # all have touched what they touch
    say(comm, **shared_memory())
    comm.barrier()  # nobody unmaps before all have looked


def growth(comm: pycoll.Communicator, operations: int) -> None:
    """Half of the operations wait, half go through the queue."""
    small_pages()
    libc = ctypes.CDLL(None)
    x = np.zeros(1)

    def after(count: int) -> int:
        for _ in range(count // 2):
            comm.allreduce(x)
            comm.allreduce(x, wait=False).wait()
        libc.malloc_trim(0)  # what the allocator keeps for later, at its own discretion, is not held by anybody
        return resident()

    before = after(operations // 4)
    say(comm, grown=after(operations) - before)


if __name__ == "__main__":
    with pycoll.init(timeout=60) as world:
        shared(world) if sys.argv[1] == "shared" else growth(world, int(sys.argv[2]))
