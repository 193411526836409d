"""From where records were emitted to the rank that reduces them: who gets what, and the way there."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from .._core import Collector, Merge, Segments, Spool
from ..data import by_size
from ..errors import Error, InvalidArgument, capture
from ..objects import allgather
from ..together import agree

if TYPE_CHECKING:
    from ..comm import Communicator
    from .memory import Memory

_SAMPLE = 4096  # keys of all ranks together, of which the bounds of ranges are chosen

#: Cuts a collector's records into a part for each rank: segments of each of its runs.
Cut = Callable[[Collector], list[list[Segments]]]


def cut_by_hash(comm: Communicator, collector: Collector) -> Cut:
    """Each rank gets buckets of hashes, dealt out so that bytes are even.

    A bucket that is large by one frequent key makes its rank get fewer of the others. Collective.
    """
    mine = collector.bucket_bytes()
    total = comm.allreduce(mine.astype(np.int64))
    masks = []
    for buckets in by_size(total.tolist(), comm.size):
        wanted = np.zeros(total.size, bool)
        wanted[buckets] = True
        masks.append(wanted.tolist())
    return lambda collector: [collector.of_buckets(mask) for mask in masks]


def cut_by_range(comm: Communicator, collector: Collector, memory: Memory) -> Cut:
    """Each rank gets a range of keys, in order of ranks, so that bytes are about even. Collective.

    Ranges are cut at keys of a sample, taken of each rank's records at even distances of bytes.
    """
    mine = collector.sample()  # keys, each with the bytes that it stands for
    thin = max(len(mine) * comm.size // _SAMPLE, sum(len(key) for key, _ in mine) * comm.size // memory.sample)
    step = max(min(thin, len(mine)), 1)  # a rank that has records sends a key
    thinned = [(key, nbytes * step) for key, nbytes in mine[step // 2 :: step]]
    everything = [entry for entries in allgather(comm, thinned) for entry in entries]
    everything.sort(key=lambda entry: (entry[0][1:], entry[0][:1]))  # a sampled key has its type in front
    bounds: list[bytes] = []
    if everything:
        ends = np.cumsum([nbytes for _, nbytes in everything])
        places = np.searchsorted(ends, ends[-1] * np.arange(1, comm.size) / comm.size).tolist()
        bounds = [everything[place][0] for place in places]
    lower: list[bytes | None] = [None, *bounds, *[None] * (comm.size - 1 - len(bounds))]
    upper: list[bytes | None] = [*lower[1:], None]
    return lambda collector: [collector.between(low, high) for low, high in zip(lower, upper, strict=True)]


def shuffle(
    comm: Communicator, parts: list[list[Segments]], fold: str, order: str, folder: str, memory: Memory
) -> tuple[list[list[Segments]], int]:
    """Sends each rank its part. Collective: rounds of one uneven alltoall each, until all have sent all.

    Returns: what each rank has for this one, in rank order; the bytes that this rank sent.

    Raises: on all ranks, if one cannot read or write its files, or has no room for the largest records that come.
    """
    _check_room(comm, parts, fold, memory)
    stage = memory.stage(comm.size)
    buffer = memory.buffer(sum(len(part) for part in parts))
    merges = [Merge(fold, order, part if rank != comm.rank else [], buffer) for rank, part in enumerate(parts)]
    came = [Spool(folder) for _ in range(comm.size)]
    outgoing = np.empty((comm.size, stage), np.uint8)
    sent, failure = 0, None
    while True:
        counts = np.zeros(comm.size, np.int64)
        try:
            for rank, merge in enumerate(merges):
                counts[rank] = merge.fill(outgoing[rank]) if rank != comm.rank else 0
        except Exception as error:
            failure = error
        incoming_counts = _told(comm, counts, failure)
        if incoming_counts is None:
            break
        packed = np.concatenate([outgoing[rank, :count] for rank, count in enumerate(counts)])
        incoming = np.empty(int(incoming_counts.sum()), np.uint8)
        comm.alltoall(packed, incoming, send_counts=counts.tolist(), recv_counts=incoming_counts.tolist())
        sent += packed.size
        try:
            begin = 0
            for spool, count in zip(came, incoming_counts.tolist(), strict=True):
                spool.append(incoming[begin : begin + count])
                begin += count
        except Exception as error:
            failure = error
    return [parts[rank] if rank == comm.rank else [came[rank].segments()] for rank in range(comm.size)], sent


def _check_room(comm: Communicator, parts: list[list[Segments]], fold: str, memory: Memory) -> None:
    """Raises InvalidArgument on all ranks if one could not hold the records that it merges, one of each source."""
    largest = np.array([max((s.largest for s in part), default=0) for part in parts], np.int64)
    others = comm.alltoall(largest)
    others[comm.rank] = 0
    at_once = max(
        sum(s.largest for part in parts for s in part), int(others.sum()) + sum(s.largest for s in parts[comm.rank])
    )

    def check() -> None:
        if fold != "set" and at_once > memory.left:
            raise InvalidArgument(
                f"mapreduce: rank {comm.rank}: records of {max(largest.max(), others.max())} bytes are too large: "
                f"{at_once} bytes would be merged at once, and memory= leaves {memory.left}"
            )

    agree(comm, "mapreduce", capture(check))


def _told(comm: Communicator, counts: np.ndarray, failure: Exception | None) -> np.ndarray | None:
    """Bytes that every rank sends this one in this round; None if nobody sends more. Raises if a rank has failed."""
    told = np.stack([counts, np.full(comm.size, -1 if failure else int(counts.sum()))], axis=1)
    heard = comm.alltoall(told).reshape(comm.size, 2)
    if failure:
        raise failure
    if failed := np.flatnonzero(heard[:, 1] < 0).tolist():
        raise Error(f"mapreduce: rank {failed[0]} failed in the shuffle; its own error says why")
    return np.ascontiguousarray(heard[:, 0]) if heard[:, 1].any() else None
