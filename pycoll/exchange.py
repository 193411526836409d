"""How ranks that have no communicator yet tell each other a few bytes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Protocol

import numpy as np

from .errors import Timeout, TransportError


class Exchange(Protocol):
    """The ranks of a group to be."""

    rank: int
    size: int

    def allgather(self, mine: bytes) -> list[bytes]:
        """Every rank's bytes, in rank order. All ranks call; raises after the deadline."""
        ...


class AloneExchange:
    """One rank."""

    rank = 0
    size = 1

    def allgather(self, mine: bytes) -> list[bytes]:
        return [mine]


class MpiExchange:
    """The ranks of an MPI communicator, by its handle."""

    def __init__(self, mpi: Any, handle: int, timeout: float) -> None:
        self.rank, self.size = mpi.rank_and_size(handle)
        self._mpi, self._handle, self._timeout = mpi, handle, timeout

    def allgather(self, mine: bytes) -> list[bytes]:
        return self._mpi.allgather(self._handle, mine, self._timeout)


class StoreExchange:
    """Ranks that share a torch.distributed store: started by torchrun, or by hand with the same environment."""

    def __init__(self, store: Any, rank: int, size: int, timeout: float) -> None:
        self.rank, self.size = rank, size
        self._store, self._timeout, self._round = store, timedelta(seconds=min(timeout, 1e8)), 0

    def allgather(self, mine: bytes) -> list[bytes]:
        keys = [f"{self._round}/{rank}" for rank in range(self.size)]
        self._round += 1
        read = f"{self._round}/read"
        try:
            self._store.set(keys[self.rank], mine)
            self._store.wait(keys, self._timeout)
            gathered = [bytes(self._store.get(key)) for key in keys]
            # Rank 0 may be the store's host, and this the last round before its program ends.
            if self._store.add(read, 1) < self.size and self.rank == 0:
                self._wait_for(read)
        except RuntimeError as error:  # DistError and its kin
            raise TransportError(
                f"init: rank {self.rank} of {self.size}: the store failed in round {self._round}: {error}"
            ) from None
        return gathered

    def _wait_for(self, counter: str) -> None:
        deadline = time.monotonic() + self._timeout.total_seconds()
        while self._store.add(counter, 0) < self.size:
            if time.monotonic() > deadline:
                raise Timeout(
                    f"init: rank {self.rank}: not all {self.size} ranks came within {self._timeout.total_seconds()} s"
                )
            time.sleep(0.001)


class GroupExchange:
    """Some ranks of an existing communicator. All of its ranks take part, in every group, in the same steps."""

    def __init__(self, parent: Any, members: Sequence[int]) -> None:
        self.rank, self.size = list(members).index(parent.rank), len(members)
        self._parent, self._members = parent, members

    def allgather(self, mine: bytes) -> list[bytes]:
        everything = allgather_bytes(self._parent, mine)
        return [everything[rank] for rank in self._members]


def allgather_bytes(comm: Any, mine: bytes) -> list[bytes]:
    """Every rank's bytes over a communicator."""
    counts = comm.allgather(np.array([len(mine)], dtype=np.int64))
    gathered = comm.allgather(np.frombuffer(mine, dtype=np.uint8), counts=counts.tolist())
    ends = np.cumsum(counts)
    return [gathered[end - count : end].tobytes() for end, count in zip(ends, counts, strict=True)]
