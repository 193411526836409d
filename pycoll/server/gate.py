"""Who may go on: the clocks of the workers of a parameter server. Nothing here communicates."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from ..arguments import check_whole
from ..errors import InvalidArgument


@dataclass(frozen=True)
class Mode:
    """How far workers may be apart, and whether their gradients are averaged. Made by `mode_of` and `bounded`."""

    name: str
    staleness: float  # pushes that a worker may be ahead of the slowest one when it goes on

    @property
    def averages(self) -> bool:
        """True if an update is the mean of one push of every worker; else each push is an update of its own."""
        return self.name == "sync"

    def __str__(self) -> str:
        return f"bounded(staleness={self.staleness})" if self.name == "bounded" else self.name


def bounded(staleness: int) -> Mode:
    """Asynchronous, but no worker goes on while it is more than `staleness` pushes ahead of the slowest one.

    Stale synchronous parallel (Ho et al., NIPS 2013). With 0, workers go in step, each push an update of its own.
    """
    check_whole("bounded", "staleness", staleness, 0)
    return Mode("bounded", staleness)


def mode_of(mode: str | Mode) -> Mode:
    """The mode that an argument means. Raises InvalidArgument."""
    if isinstance(mode, Mode):
        return mode
    known = {"sync": Mode("sync", 0), "async": Mode("async", math.inf)}
    if not isinstance(mode, str) or mode not in known:
        raise InvalidArgument(
            f'ParameterServer: mode is {mode!r}, wanted "sync", "async" or pycoll.server.bounded(staleness)'
        )
    return known[mode]


class Gate:
    """The clock of a worker is the number of its pushes; it may go on, to read or to push once more, only while it is
    at most `staleness` ahead of the slowest.

    So clocks never differ by more than staleness + 1, and what a worker reads lacks no push that is more than
    `staleness` behind its own clock.
    """

    def __init__(self, workers: Iterable[int], mode: Mode) -> None:
        self.mode = mode
        self.clocks = dict.fromkeys(workers, 0)
        self.left: set[int] = set()

    def lead(self, worker: int) -> int:
        """How many pushes a worker is ahead of the slowest."""
        return self.clocks[worker] - self.lowest()

    def lowest(self) -> int:
        """The clock of the slowest worker."""
        return min(self.clocks.values(), default=0)

    def open(self, worker: int) -> bool:
        """True if the worker may go on."""
        return self.lead(worker) <= self.mode.staleness

    def slowest(self) -> list[int]:
        """Those for whom the others wait."""
        lowest = self.lowest()
        return [worker for worker, clock in self.clocks.items() if clock == lowest]

    def advance(self, worker: int) -> None:
        """Counts a push of a worker that may go on."""
        assert self.open(worker)
        self.clocks[worker] += 1

    def leave(self, worker: int) -> None:
        """Nobody waits for this worker from now on, but where updates are means of all: there it stays the slowest."""
        self.left.add(worker)
        if not self.mode.averages:
            del self.clocks[worker]
