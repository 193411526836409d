"""How the server reaches the ranks that host clients: over a communicator, or by a call where one rank is all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np

from .._core import Work
from ..comm import Communicator
from ..errors import Timeout
from .messages import (
    COMMON,
    HEADER,
    TAG_FAREWELL,
    TAG_REPLY,
    TAG_REPLY_BODY,
    TAG_REQUEST,
    TAG_REQUEST_BODY,
    Kind,
    Reply,
    Request,
    pack,
    unpack,
)

FOREVER = 1e8  # seconds: what is waited for so long fails if the peer dies
LOOK = 0.02  # seconds between two looks at whether a host has taken its request


class Link(Protocol):
    """The server's end."""

    sent: int  # bytes
    received: int

    def post(self, request: Request) -> set[int]:
        """Sends it to all ranks that host one of its clients; the clients it goes to. Does not wait."""

    def next(self, until: float | None) -> Reply | None:
        """The next reply of any round, None once time.monotonic() has passed `until`."""

    def stop(self, parameters: np.ndarray) -> None:
        """Ends all hosts' serving. Waits until they have taken the parameters."""


class LocalLink:
    """To clients of this very rank. A reply is computed when it is asked for."""

    def __init__(self, answer: Callable[[Request], Iterator[Reply]]) -> None:
        self.sent = self.received = 0
        self._answer = answer
        self._replies: Iterator[Reply] = iter(())

    def post(self, request: Request) -> set[int]:
        self._replies = self._answer(request)
        return set(request.clients)

    def next(self, until: float | None) -> Reply | None:
        reply = next(self._replies, None)
        return None if until is not None and time.monotonic() > until else reply

    def stop(self, parameters: np.ndarray) -> None:
        self._replies = iter(())


class RemoteLink:
    """To the ranks `hosts`; client c is at hosts[c % len(hosts)]."""

    def __init__(self, comm: Communicator, hosts: list[int]) -> None:
        self.sent = self.received = 0
        self._comm, self._hosts = comm, hosts
        self._header = np.empty(HEADER, np.int64)
        self._incoming: Work | None = None  # the receive of the next header, where one is posted
        # A receive that names its source fails when that one dies; one from any source does not.
        self._farewells = [
            comm.recv(np.empty(1, np.uint8), host, tag=TAG_FAREWELL, wait=False, timeout=FOREVER) for host in hosts
        ]
        self._outgoing: dict[int, list[Work]] = {host: [] for host in hosts}

    def post(self, request: Request) -> set[int]:
        reached: set[int] = set()
        for index, host in enumerate(self._hosts):
            mine = {c: blob for c, blob in request.clients.items() if c % len(self._hosts) == index}
            # A rank that has not even taken the last request would only fall further behind.
            if mine and all(work.done() for work in self._outgoing[host]):
                self._send(host, request, mine)
                reached |= mine.keys()
        return reached

    def next(self, until: float | None) -> Reply | None:
        if self._incoming is None:
            self._incoming = self._comm.recv(self._header, None, tag=TAG_REPLY, wait=False)
        try:
            self._incoming.wait(None if until is None else max(0.0, until - time.monotonic()))
        except Timeout:
            if until is None or self._comm.failed:
                raise
            return None
        source, self._incoming = self._incoming.source, None
        assert source is not None
        kind, round, client, samples, bytes = (int(n) for n in self._header)
        body = np.empty(bytes, np.uint8)
        if bytes:
            self._comm.recv(body, source, tag=TAG_REPLY_BODY)
        self.received += bytes + self._header.nbytes
        return Reply(Kind(kind), round, client, samples, body)

    def stop(self, parameters: np.ndarray) -> None:
        for host in self._hosts:
            self._send(host, Request(Kind.STOP, -1, {}, parameters), {})
        waiting = len(self._hosts)
        while waiting:  # late replies come first
            reply = self.next(None)
            waiting -= reply is not None and reply.kind == Kind.STOP
        for farewell in self._farewells:
            farewell.wait()

    def _send(self, host: int, request: Request, clients: dict[int, np.ndarray]) -> None:
        body = pack({COMMON: request.common, **clients})
        header = Reply(request.kind, request.round, COMMON, 0, body).header
        self._outgoing[host] = [
            self._comm.send(header, host, tag=TAG_REQUEST, wait=False),
            self._comm.send(body, host, tag=TAG_REQUEST_BODY, wait=False),
        ]
        self.sent += header.nbytes + body.nbytes


class HostLink:
    """A host's end."""

    def __init__(self, comm: Communicator, server: int) -> None:
        self._comm, self._server = comm, server
        self._header = np.empty(HEADER, np.int64)
        self._incoming = self._post(1)

    def receive(self) -> Request:
        """The next request, and no other receive is posted until it was read."""
        self._incoming.wait()
        kind, round, _, _, bytes = (int(n) for n in self._header)
        body = np.empty(bytes, np.uint8)
        self._comm.recv(body, self._server, tag=TAG_REQUEST_BODY)
        clients = unpack(body)
        common = clients.pop(COMMON)
        if kind != Kind.STOP:
            self._incoming = self._post(1 + len(clients))
        return Request(Kind(kind), round, clients, common)

    def overtaken(self) -> bool:
        """True if the next request is here already: the server waits for nothing of the last one any more."""
        return self._incoming.done()

    def send(self, reply: Reply) -> None:
        self._comm.send(reply.header, self._server, tag=TAG_REPLY)
        if reply.body.size:
            self._comm.send(reply.body, self._server, tag=TAG_REPLY_BODY)

    def leave(self) -> None:
        """The last word: the server stops watching whether this rank is alive."""
        self._comm.send(np.zeros(1, np.uint8), self._server, tag=TAG_FAREWELL)

    def _post(self, answers: int) -> Work:
        # The server may wait its timeout for each answer, and as long again before it asks for more.
        return self._comm.recv(
            self._header, self._server, tag=TAG_REQUEST, timeout=answers * self._comm.timeout, wait=False
        )
