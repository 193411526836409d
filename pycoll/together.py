"""Ranks that each do their own work for as long as it takes, and notice when one of them fails."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from .errors import Error, InvalidArgument
from .objects import allgather

if TYPE_CHECKING:
    from .comm import Communicator

T = TypeVar("T")

_PERIOD = 0.05  # seconds between two looks at the others


def told(error: BaseException) -> str:
    """What an exception says, for other ranks, whatever its class does when it is asked."""
    try:
        return str(error) if isinstance(error, Error) else f"{type(error).__name__}: {error}"
    except Exception as another:
        return f"{type(error).__name__}, whose text cannot be had: {type(another).__name__}"


def agree(comm: Communicator, subject: str, error: BaseException | None) -> None:
    """Raises what any rank passes, on all ranks: there as it is, elsewhere an Error that names the rank. Collective."""
    for rank, heard in enumerate(allgather(comm, error and (isinstance(error, InvalidArgument), told(error)))):
        if heard and error:
            raise error
        if heard:
            invalid, text = heard
            raise (InvalidArgument if invalid else Error)(text if invalid else f"{subject}: rank {rank} failed: {text}")


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
        #: Why this rank's work is to end, or None.
        self.error: BaseException | None = None

    def close(self) -> None:
        """Collective, but for failed ranks."""
        self._comm.close()

    def check(self) -> None:
        """Raises if another rank has failed. Work calls it often: it only looks at `error`."""
        if self.error:
            raise self.error

    def run(
        self,
        what: str,
        work: Callable[[], T],
        done: Callable[[], int],
        report: Callable[[int], None] | None = None,
        stop: Callable[[], None] | None = None,
    ) -> T:
        """``work()`` of this rank, once it has ended on all. Collective.

        what: the work's name in messages. done: how far this rank is. report: called in a thread with the sum of `done`
        over ranks, every 50 ms and at the end. stop: called in a thread once another rank has failed, for work that
        cannot look.

        Raises: what this rank's work or report raised; Error that names the rank, if another's did; PeerFailed or
        Timeout.
        """
        ended = threading.Event()
        failure: list[BaseException] = []  # of this rank

        def meet() -> None:
            state = np.zeros(3, np.int64)
            ends = 0  # once all have ended they meet again: a report may have failed until then
            try:
                while ends < 2:
                    over = ended.wait(_PERIOD)
                    state[:] = not over, bool(failure), done()
                    self._comm.allreduce(state)
                    if state[1]:
                        self._tell(what, failure)
                    ends += not state[0]
                    if report and ends < 2:
                        try:
                            report(int(state[2]))
                        except Exception as error:
                            failure.append(error)
            except BaseException as error:
                self.error = error
                if stop:
                    stop()

        meeting = threading.Thread(target=meet, name=f"{self._subject}: {what}", daemon=True)
        meeting.start()
        try:
            result = work()
        except BaseException as error:
            if not self.error or not isinstance(error, Exception):
                failure.append(error)
        finally:
            ended.set()
            meeting.join()
        if failure:
            raise failure[0]
        self.check()
        return result

    def _tell(self, what: str, failure: list[BaseException]) -> None:
        """All ranks hear what the first one to fail raised."""
        mine = told(failure[0]) if failure else None
        for rank, text in enumerate(allgather(self._comm, mine)):
            if text is not None:
                raise Error(f"{self._subject}: rank {rank} failed in {what}: {text}")


__all__ = ["Together", "agree", "told"]
