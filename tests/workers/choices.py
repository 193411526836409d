"""Collectives over private arrays while the environment forces how bytes move; see test_choices.py.

Every rank prints one line: "RANK USED", USED being the bytes of shared memory that it has touched after one large
allreduce, then runs all collectives and sizes.
"""

from __future__ import annotations

import sys

import numpy as np
from memory import shared_memory, small_pages

import pycoll

LARGE = 8 << 20  # bytes
BYTES = [1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, LARGE]
UNEVEN = 6  # elements more, so that the last cache line of a chunk is not full


def of(rank: int, count: int) -> np.ndarray:
    return ((np.arange(count) + 5 * rank) % 97).astype(np.float32)


def check(comm: pycoll.Communicator, count: int) -> None:
    """`count` elements in the larger of input and result; a multiple of the number of ranks."""
    rank, size, part = comm.rank, comm.size, count // comm.size
    own = slice(rank * part, (rank + 1) * part)
    summed = sum(of(peer, count) for peer in range(size))

    def same(kind: str, got: np.ndarray, wanted: np.ndarray) -> None:
        assert np.array_equal(got, wanted), f"{kind} of {count}: rank {rank} got {got}, wanted {wanted}"

    same("allreduce", comm.allreduce(of(rank, count)), summed)
    same("allreduce out", comm.allreduce(of(rank, count), out=np.full(count, -1, np.float32)), summed)
    same("reduce_scatter", comm.reduce_scatter(of(rank, count)), summed[own])
    same("allgather", comm.allgather(of(rank, part)), np.concatenate([of(peer, part) for peer in range(size)]))
    for root in range(size):
        same("broadcast", comm.broadcast(of(rank, count), root), of(root, count))
    same("alltoall", comm.alltoall(of(rank, count)), np.concatenate([of(peer, count)[own] for peer in range(size)]))


if __name__ == "__main__":
    small_pages()
    with pycoll.init(timeout=60) as world:
        world.allreduce(np.zeros(LARGE // 4, np.float32))
        sys.stdout.write(f"{world.rank} {shared_memory()['Rss']}\n")
        for nbytes in BYTES:
            for count in (nbytes // 4, nbytes // 4 + UNEVEN):
                check(world, count)
