"""What a job leaves: results, and what it took."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .._core import Merge, Spool

_PIECE = 256 << 10  # bytes of results at a time


@dataclass
class Stats:
    """Of this rank, unless it says "all". Bytes and seconds."""

    records: int = 0  # emitted by map
    spilled: int = 0  # bytes written because memory was full
    runs: int = 0  # files of sorted records after map
    sent: int = 0  # bytes to other ranks
    reduced: int = 0  # bytes that this rank reduces, its own among them
    results: int = 0  # of this rank
    seconds: dict[str, float] = field(default_factory=dict)  # map, shuffle, reduce
    peak: int = 0  # bytes of memory that the process had at most, since it began
    #: The most bytes that a rank reduces, over the mean of all ranks: 1 is even.
    skew: float = 1.0
    #: The keys with the most values, of all ranks: (key, values). Only where a function reduces.
    frequent: list[tuple[Any, int]] = field(default_factory=list)


class Result:
    """Results of `run`. Iterating gives this rank's as (key, value), as often as wanted, if no output was named.

    Attributes:
        files: URLs of all ranks' shards, in rank order; empty if no output was named.
        stats: what the job took.
    """

    def __init__(self, spool: Spool | None, files: list[str], stats: Stats) -> None:
        self._spool, self.files, self.stats = spool, files, stats

    def __len__(self) -> int:
        """Results of this rank."""
        return self.stats.results

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        if self._spool is None:
            raise TypeError("the results are in files, see Result.files; run without output= keeps them")
        merge = Merge("none", "hash", [self._spool.segments()], _PIECE)
        while pairs := merge.pairs(_PIECE):
            yield from pairs


__all__ = ["Result", "Stats"]
