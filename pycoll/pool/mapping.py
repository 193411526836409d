"""The calls of one map: some chunks under way, and their results in the inputs' order, or as they come."""

from __future__ import annotations

import itertools
import queue
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from concurrent.futures import Future
from typing import Any

from .outcome import Call, Chunk, RetryOn, chunk
from .task import Task, as_many
from .worker import LONG


class Mapping:
    """put: starts a call. ahead: f(), how many chunks may be under way. chunksize: 0: what suits the calls, and a chunk
    that takes long comes back with what it has not begun."""

    def __init__(
        self,
        put: Callable[[Call], Task],
        ahead: Callable[[], int],
        function: Callable[..., Any],
        iterables: tuple[Iterable[Any], ...],
        *,
        retries: int,
        retry_on: RetryOn,
        chunksize: int,
        ordered: bool,
    ) -> None:
        self._put, self._ahead, self._function = put, ahead, function
        self._columns = _columns(iterables)
        self._how = retries, retry_on, float("inf") if chunksize else LONG
        self._many, self._adapts, self._ordered = chunksize or 1, not chunksize, ordered
        self._open: deque[Task] = deque()  # in the inputs' order
        self._came: queue.SimpleQueue[Future[Chunk]] = queue.SimpleQueue()

    def results(self, deadline: float | None) -> Iterator[Any]:
        """Raises TimeoutError if one is not there at the deadline, a time.monotonic(); what a call raised, where its
        result would be."""
        try:
            while True:
                while len(self._open) < self._ahead() and (columns := self._columns(self._many)):
                    self._open.append(self._start(columns))
                if not self._open:
                    return
                task = self._next(deadline)
                done: Chunk = task.future.result()
                if self._adapts:
                    self._many = as_many(len(done.results), done.seconds, task.nbytes, self._many)
                columns = task.call[1][1]
                if done.raised is None and len(done.results) < len(columns[0]):
                    self._open.appendleft(self._start([column[len(done.results) :] for column in columns]))
                yield from done.results
                if done.raised is not None:
                    raise done.raised.on(task.rank)
        finally:
            for task in self._open:
                task.future.cancel()

    def _start(self, columns: list[Any]) -> Task:
        task = self._put((chunk, (self._function, columns, *self._how), {}))
        if not self._ordered:
            task.future.add_done_callback(self._came.put)
        return task

    def _next(self, deadline: float | None) -> Task:
        """The next chunk that is done, not open any more."""
        left = None if deadline is None else max(deadline - time.monotonic(), 0)
        try:
            if self._ordered:
                self._open[0].future.exception(left)
                return self._open.popleft()
            future = self._came.get(timeout=left)
        except (futures.TimeoutError, queue.Empty):
            raise TimeoutError("TaskPool.map: a result was not there in time") from None
        task = next(task for task in self._open if task.future is future)
        self._open.remove(task)
        return task


def _columns(iterables: tuple[Iterable[Any], ...]) -> Callable[[int], list[Any]]:
    """f(count): the next elements of each iterable, as many, up to count; [] at the end. Read as zip reads them."""
    if len(iterables) == 1:
        elements = iter(iterables[0])
        return lambda count: [column] if (column := list(itertools.islice(elements, count))) else []
    rows = zip(*iterables, strict=False)
    return lambda count: list(zip(*itertools.islice(rows, count), strict=True))
