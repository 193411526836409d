"""Small Python objects between all ranks, pickled."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .comm import Communicator


def allgather(comm: Communicator, mine: Any) -> list[Any]:
    """Every rank's object, in rank order. Collective. Raises what pickle raises for `mine`."""
    data = np.frombuffer(pickle.dumps(mine, protocol=5), np.uint8)
    counts = comm.allgather(np.array([data.size], np.int64)).ravel().tolist()
    everything = np.empty(sum(counts), np.uint8)
    comm.allgather(data, everything, counts=counts)
    ends = np.cumsum(counts).tolist()
    return [pickle.loads(everything[end - count : end].data) for end, count in zip(ends, counts, strict=True)]
