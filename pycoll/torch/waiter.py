"""Threads that wait for operations, so that a future is complete without anybody waiting for its Work."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable


class Waiters:
    """Runs jobs, each in a thread of its own that is used again. Never a job behind another: a callback of a future may
    wait for the next future."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0

    def submit(self, job: Callable[[], None]) -> None:
        with self._lock:
            if self._idle:
                self._idle -= 1
            else:
                # A daemon: at exit communicators end what is under way, not the other way round.
                threading.Thread(target=self._serve, name="pycoll-waiter", daemon=True).start()
        self._jobs.put(job)

    def _serve(self) -> None:
        while True:
            job = self._jobs.get()
            job()
            del job  # with its tensors
            with self._lock:
                self._idle += 1


waiters = Waiters()
