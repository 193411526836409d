"""Operations under way, as torch sees them."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from .. import _core
from .loan import Loan
from .waiter import waiters


def seconds_of(timeout: timedelta | None) -> float | None:
    """torch's timeout as the core's: None where none was given, which torch writes as 0 or -1 ms."""
    seconds = timeout.total_seconds() if timeout is not None else 0
    return seconds if seconds > 0 else None


class Work(dist.Work):
    """Operations of the core that are one for torch.

    parts: the core's. result: the tensors that its future will hold. loan: whose copies go back at the end.
    """

    def __init__(self, parts: Sequence[_core.Work], result: list[torch.Tensor], loan: Loan | None = None) -> None:
        super().__init__()
        self._parts, self._result, self._loan = parts, result, loan
        self._lock = threading.Lock()
        self._future: Any = None
        self.ranges: tuple[Any, ...] = ()  # futures: what a profiler has of this operation is complete

    def wait(self, timeout: timedelta | None = None) -> bool:
        """Returns True when the operation is done; raises its error, or Timeout, and then the operation goes on."""
        self._end(seconds_of(timeout))
        for noted in self.ranges:
            noted.wait()
        return True

    def _end(self, seconds: float | None = None) -> list[torch.Tensor]:
        if seconds is None:
            for part in self._parts:
                part.wait()
        else:
            end = time.monotonic() + seconds
            for part in self._parts:
                part.wait(seconds)
                seconds = max(end - time.monotonic(), 0)
        self._settle()
        return self._result

    def _settle(self) -> None:
        with self._lock:
            if self._loan is not None:
                self._loan.give_back()
                self._loan = None

    def is_completed(self) -> bool:
        if not all(part.done() for part in self._parts):
            return False
        if self._error() is None:
            self._settle()
        return True

    def _error(self) -> BaseException | None:
        return next((error for part in self._parts if (error := part.exception())), None)

    def is_success(self) -> bool:
        return self.is_completed() and self._error() is None

    def exception(self) -> BaseException | None:
        """The error of an operation that has ended; None if there was none, or it goes on."""
        return self._error() if self.is_completed() else None

    def synchronize(self) -> None:
        self.wait()

    def result(self) -> list[torch.Tensor]:
        self.wait()
        return self._result

    def source_rank(self) -> int:
        """Of a receive that is done: the rank in the group that sent the message."""
        self.wait()
        return self._parts[0].source or 0

    _source_rank = source_rank

    def get_future(self) -> Any:
        """A future of the list of tensors with the result."""
        with self._lock:
            if self._future is not None:
                return self._future
            done: torch.futures.Future[None] = torch.futures.Future()
            # An error raised in a callback is one for C++ too; one given to set_exception() is not.
            self._future = done.then(lambda _: self._end())
        if self.is_completed():
            done.set_result(None)
        else:
            self.complete(done)
        return self._future

    def complete(self, future: torch.futures.Future[None]) -> None:
        """Another thread sets the future when the operation has ended, well or not."""

        def wait_and_set() -> None:
            for part in self._parts:
                part.exception()
            future.set_result(None)

        waiters.submit(wait_and_set)


class Done(Work):
    """An operation that ended before its call returned."""

    def __init__(self, result: list[torch.Tensor]) -> None:
        super().__init__((), result)

    def wait(self, timeout: timedelta | None = None) -> bool:
        return True
