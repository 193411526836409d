"""A worker's side: a thread that asks the servers, so that the worker computes meanwhile."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ..errors import Error
from .pieces import Reply, Request
from .server import ANSWER, BODY, FAREWELL, REPLY, REQUEST, Server, post, receive, tell

if TYPE_CHECKING:
    from ..comm import Communicator

T = TypeVar("T")
_GRACE = 5.0  # seconds by which a server is the first to pass a deadline: it knows who is waited for


class Client:
    """Runs jobs in the order given, in one thread: each encodes, asks servers, waits for all replies, decodes."""

    def __init__(self, comm: Communicator, servers: Sequence[int], local: Server | None) -> None:
        self.rank, self.servers = comm.rank, servers
        self.received_bytes = self.sent_bytes = 0
        self._comm, self._local = comm, local
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = queue.SimpleQueue()
        self._error: BaseException | None = None
        # A daemon: a program that ends with an exception does not wait for it.
        self._thread = threading.Thread(target=self._work, name=f"pycoll-worker {comm.rank}", daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], T]) -> Future[T]:
        """Starts a job behind the others. Its future raises what the first one that failed raised."""
        future: Future[T] = Future()
        self._jobs.put((job, future))
        return future

    def ask(self, requests: dict[int, Request]) -> dict[int, Reply]:
        """Each server's reply. Of a job."""
        timeout = self._comm.timeout + _GRACE
        sending, sizes = [], {}
        for server, request in requests.items():
            if server == self._comm.rank:
                continue
            size = np.empty(1, np.int64)
            sizes[server] = size, self._comm.recv(size, server, tag=REPLY, wait=False, timeout=timeout)
            works, bytes = post(self._comm, request, server, (REQUEST, BODY))
            sending += works
            self.sent_bytes += bytes
            if request.leave:
                sending.append(self._comm.send(np.zeros(1, np.uint8), server, tag=FAREWELL, wait=False))
        replies = {}
        if self._local is not None and self._comm.rank in requests:
            replies[self._comm.rank] = self._local.take_local(requests[self._comm.rank], timeout)
        for server, (size, coming) in sizes.items():
            coming.wait()
            replies[server], bytes = receive(self._comm, size, server, ANSWER)
            self.received_bytes += bytes
        for work in sending:
            work.wait()
        return replies

    def close(self) -> None:
        """Ends the thread when it has done what was submitted."""
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, future = item
            try:
                if self._error is not None:
                    raise self._error
                future.set_result(job())
            except Exception as error:
                if self._error is None:
                    self._error = error
                    if not isinstance(error, Error) or not self._comm.failed:
                        tell(self._comm, error)
                future.set_exception(error)
            del item, job, future
