"""The loop of a server: requests in, replies out, over messages from any worker."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import Timeout
from ..parcel import from_body, to_body
from .desk import Desk
from .pieces import Reply, Request

if TYPE_CHECKING:
    from ..comm import Communicator

# Tags. A message is its number of bytes, then the bytes; a server takes the former from any worker.
REQUEST, BODY, REPLY, ANSWER, FAREWELL = range(5)
FOREVER = 1e8  # seconds: what is waited for so long fails if the peer dies
_LOOK = 0.02  # seconds between two looks at deadlines


def post(comm: Communicator, content: Any, to: int, tags: tuple[int, int]) -> tuple[list[Any], int]:
    """Starts to send an object, as it is now; the operations under way, and its bytes."""
    body = to_body(content)
    size = np.array([body.size], np.int64)
    # Calls that do not wait may come from several threads: the engine's queue has a lock.
    works = [comm.send(x, to, tag=tag, wait=False) for x, tag in zip((size, body), tags, strict=True)]
    return works, body.size


def tell(comm: Communicator, error: BaseException) -> None:
    """Makes the operations of all ranks raise what has happened here."""
    comm._abort(f"ended with {type(error).__name__}: {error}"[:400])


def receive(comm: Communicator, size: np.ndarray, source: int, tag: int) -> tuple[Any, int]:
    """The object whose size has come, and its bytes."""
    body = np.empty(int(size[0]), np.uint8)
    comm.recv(body, source, tag=tag, wait=False).wait()
    return from_body(body), body.size  # from a rank of our own program


class Server:
    """Serves a desk to the workers among the ranks, itself in this process's other thread among them."""

    def __init__(self, comm: Communicator, desk: Desk, workers: Sequence[int]) -> None:
        self.error: BaseException | None = None
        self.received_bytes = self.sent_bytes = 0
        self._comm, self._desk, self._workers = comm, desk, workers
        self._lock = threading.Lock()  # of the desk
        self._remote = {worker for worker in workers if worker != comm.rank}
        self._local = comm.rank in workers
        self._sending: list[Any] = []
        self._called = time.monotonic()

    def run(self) -> None:
        """Until all workers have left. Raises what went wrong; then all ranks have been told."""
        try:
            # A receive that names its source fails when that one dies; one from any source does not.
            farewells = {
                w: self._comm.recv(np.empty(1, np.uint8), w, tag=FAREWELL, wait=False, timeout=FOREVER)
                for w in self._remote
            }
            size = np.empty(1, np.int64)
            while self._remote:
                arrival = self._comm.recv(size, None, tag=REQUEST, wait=False, timeout=FOREVER)
                self._wait_for(arrival.done, arrival)
                arrival.wait()
                worker = arrival.source
                request, bytes = receive(self._comm, size, worker, BODY)
                self.received_bytes += bytes
                if request.leave:
                    farewells[worker].wait()
                    self._remote.discard(worker)
                self._take(worker, request, lambda reply, to=worker: self._reply(to, reply))  # type: ignore[misc]
            self._wait_for(lambda: not self._local, None)
            for work in self._sending:
                work.wait()
        except BaseException as error:
            self.fail(error)
            raise

    def take_local(self, request: Request, timeout: float) -> Reply:
        """A request of this process's worker. Raises what the server fails with."""
        replies: list[Reply] = []
        came = threading.Event()

        def answer(reply: Reply) -> None:
            # Of parameters and states that the next update changes.
            reply.entries = [entry.copy() for entry in reply.entries]
            reply.state = copy.deepcopy(reply.state)
            replies.append(reply)
            came.set()

        if request.push and request.pull is None:  # a mean may need them after the reply, when the worker changes them
            request.push = [entry.copy() for entry in request.push]
        if self.error is None:
            try:
                self._take(self._comm.rank, request, answer)
            except Exception as error:
                self.fail(error)
        end = time.monotonic() + timeout
        while not came.wait(_LOOK):
            if self.error is not None:
                raise self.error
            if time.monotonic() > end:
                raise Timeout(f"parameter server: rank {self._comm.rank} had no reply of its own in {timeout:g} s")
        if request.leave:
            self._local = False
        return replies[0]

    def fail(self, error: BaseException) -> None:
        """Tells all ranks, once."""
        with self._lock:
            if self.error is None:
                self.error = error
                tell(self._comm, error)

    def stats(self) -> dict[str, Any]:
        """What the desk has measured."""
        with self._lock:
            return {
                "staleness": dict(sorted(self._desk.staleness.items())),
                "lag": dict(sorted(self._desk.lag.items())),
                "queue": dict(sorted(self._desk.queue.items())),
                "queue_length": self._desk.waiting(),
                "received_bytes": self.received_bytes,
                "sent_bytes": self.sent_bytes,
            }

    def _take(self, worker: int, request: Request, answer: Callable[[Reply], None]) -> None:
        with self._lock:
            self._called = time.monotonic()
            self._desk.take(worker, request, answer)

    def _reply(self, to: int, reply: Reply) -> None:
        self._sending = [work for work in self._sending if not work.done()]
        works, bytes = post(self._comm, reply, to, (REPLY, ANSWER))
        self.sent_bytes += bytes
        self._sending += works

    def _wait_for(self, ready: Callable[[], bool], work: Any) -> None:
        """Looks at deadlines meanwhile: of requests that wait, and of workers that never call."""
        while not ready():
            if work is None:
                time.sleep(_LOOK)
            else:
                with suppress(Timeout):  # its own one is raised by whoever waits for it next
                    work.wait(_LOOK)
            if self.error is not None:
                raise self.error
            timeout = self._comm.timeout
            with self._lock:
                self._desk.check_deadline(timeout)
                if not self._desk.waiting() and time.monotonic() - self._called > timeout:
                    silent = ", ".join(str(w) for w in sorted(self._remote) + [self._comm.rank] * self._local)
                    raise Timeout(
                        f"parameter server, rank {self._comm.rank}: no request of rank {silent} for {timeout:g} s"
                    )
