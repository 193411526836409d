"""Ranks that each do their own work for as long as it takes, and notice when one of them fails."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from .errors import Error
from .objects import allgather

if TYPE_CHECKING:
    from .comm import Communicator

T = TypeVar("T")

_PERIOD = 0.05  # seconds between two looks at the others


class Together:
    """Work that ends on all ranks, or on none. Construction is collective.

    A thread of each rank meets the others' every 50 ms on a communicator of their own, so that a rank may work for
    hours without a deadline passing; only one whose thread does not come for comm's timeout counts as failed.

    Args:
        comm: the ranks.
        subject: opens the messages, "mapreduce" for example.
    """

    def __init__(self, comm: Communicator, subject: str) -> None:
        self._comm, self._subject = comm.dup(), subject
        self._error: BaseException | None = None  # why this rank's work is to end

    def close(self) -> None:
        """Collective, but for failed ranks."""
        self._comm.close()

    def check(self) -> None:
        """Raises if another rank has failed. Work calls it now and then."""
        if self._error:
            raise self._error

    def run(
        self, what: str, work: Callable[[], T], done: Callable[[], int], report: Callable[[int], None] | None = None
    ) -> T:
        """``work()`` of this rank, once it has ended on all. Collective.

        what: the work's name in messages. done: how far this rank is. report: called in a thread with the sum of `done`
        over ranks, every 50 ms and at the end.

        Raises: what this rank's work raised; Error that names the rank, if another's did; PeerFailed or Timeout.
        """
        ended = threading.Event()
        failure: list[BaseException] = []  # of this rank's work

        def meet() -> None:
            state = np.zeros(3, np.int64)
            try:
                while True:
                    over = ended.wait(_PERIOD)
                    state[:] = not over, bool(failure), done()
                    self._comm.allreduce(state)
                    if report:
                        report(int(state[2]))
                    if state[1]:
                        self._tell(what, failure)
                    if state[1] or not state[0]:
                        return
            except BaseException as error:
                self._error = error

        meeting = threading.Thread(target=meet, name=f"{self._subject}: {what}", daemon=True)
        meeting.start()
        try:
            result = work()
        except BaseException as error:
            failure.append(error)
            raise
        finally:
            ended.set()
            meeting.join()
        self.check()
        return result

    def _tell(self, what: str, failure: list[BaseException]) -> None:
        """All ranks hear what the first one to fail raised."""
        mine = f"{type(failure[0]).__name__}: {failure[0]}" if failure else None
        for rank, text in enumerate(allgather(self._comm, mine)):
            if text is not None:
                raise Error(f"{self._subject}: rank {rank} failed in {what}: {text}")


__all__ = ["Together"]
