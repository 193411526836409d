"""Ranks that are threads of one process: to try things out and to test, without a launcher."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from .arguments import check_whole
from .bootstrap import make_group
from .comm import Communicator
from .errors import PeerFailed, Timeout
from .settings import Settings

T = TypeVar("T")


class ThreadExchange:
    """One of `size` threads that share a table."""

    def __init__(self, rank: int, table: list[bytes], meeting: threading.Barrier) -> None:
        self.rank, self.size = rank, len(table)
        self._table, self._meeting = table, meeting

    def allgather(self, mine: bytes) -> list[bytes]:
        self._table[self.rank] = mine
        try:
            self._meeting.wait()
            gathered = list(self._table)
            self._meeting.wait()  # nobody writes before all have read
        except threading.BrokenBarrierError:
            raise Timeout(f"init: rank {self.rank}: not all {self.size} threads came in time") from None
        return gathered


def run(size: int, function: Callable[[Communicator], T], timeout: float | None = None) -> list[T]:
    """Calls ``function(comm)`` in `size` threads, each a rank with a communicator of its own; what they return.

    The ranks share memory as those of a node do, by the very same code. Python runs one of them at a time; inside
    pycoll's calls they run side by side.

    Args:
        size: at least 1.
        timeout: deadline of every operation in seconds (300, or PYCOLL_TIMEOUT).

    Returns:
        What each call returned, in rank order.

    Raises:
        Whatever a rank's call raised first; the other ranks' operations then raise PeerFailed, on communicators split
        from theirs too.
    """
    check_whole("loopback", "size", size, 1)
    settings = Settings.from_environment(timeout, "shm")
    table, meeting = [b""] * size, threading.Barrier(size, timeout=settings.timeout)
    results: list[T | None] = [None] * size
    errors: list[BaseException] = []

    def be(rank: int) -> None:
        try:
            with Communicator(make_group(ThreadExchange(rank, table, meeting), settings)) as comm:
                results[rank] = function(comm)
        except BaseException as error:
            errors.append(error)
            meeting.abort()

    threads = [threading.Thread(target=be, args=(rank,), name=f"rank {rank}", daemon=True) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise next((error for error in errors if not isinstance(error, (PeerFailed, Timeout))), errors[0])
    return results  # type: ignore[return-value]


__all__ = ["run"]
