"""A call that waits for a rank, or is being made by one."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from ..settings import log
from .outcome import Call, Outcome

SLICE = 0.002  # seconds that a batch should take: a hundred times what sending it does
BYTES = 4 << 20  # that a batch and its answer should have at most
MOST = 16384  # tasks a batch


@dataclass(eq=False)
class Task:
    call: Call
    future: Future[Any]
    deaths: int  # of workers that it may still survive
    alone: bool = False  # in a batch of its own
    nbytes: float = 0.0  # that it and its answer travelled as
    rank: int = 0  # that has it, or had it last

    def settle(self, outcome: Outcome) -> None:
        """Gives the future what came of the call."""
        right, value = outcome
        try:
            if right:
                self.future.set_result(value)
            else:
                self.future.set_exception(value.on(self.rank))
        except BaseException:  # of a callback: concurrent.futures lets SystemExit and the like through
            log.exception("TaskPool: a callback of a future raised")

    def fail(self, error: BaseException) -> None:
        """The future raises this, unless it was cancelled."""
        if self.future.running() or self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)


def as_many(done: int, seconds: float, nbytes: float, before: int) -> int:
    """How many tasks make a batch if `done` of them took so long and so many bytes; grows fourfold at most."""
    fit = min(SLICE / max(seconds, 1e-9), BYTES / max(nbytes, 1))
    return min(max(int(done * fit), 1), 4 * before, MOST)
