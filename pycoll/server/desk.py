"""Where a server's requests wait until the gate lets them by. Nothing here communicates."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..errors import MismatchError, Timeout
from .gate import Gate
from .pieces import Reply, Request


class Store(Protocol):
    """What the desk needs of a Shard."""

    version: int

    def set_options(self, options: Any) -> None: ...
    def collect(self, worker: int, entries: Any, tables: Any) -> None: ...
    def update(self) -> None: ...
    def read(self, worker: int, wanted: Any) -> Any: ...
    def state(self) -> Any: ...
    def exact(self, pieces: Any) -> Any: ...
    def load(self, pieces: Any) -> Any: ...


@dataclass
class _Waiting:
    worker: int
    request: Request
    answer: Callable[[Reply], None]
    since: float = field(default_factory=time.monotonic)


class Desk:
    """Takes one request of a worker at a time, does what the gate allows, and answers.

    staleness: how often a worker that read was so many pushes ahead of the slowest. lag: how often a gradient was
    computed from parameters that lacked so many updates of the shard.
    """

    def __init__(self, rank: int, gate: Gate, store: Store) -> None:
        self.staleness: Counter[int] = Counter()
        self.lag: Counter[int] = Counter()
        self.queue: Counter[int] = Counter()  # requests that waited, seen by each one that came
        self._rank, self._gate, self._store = rank, gate, store
        self._waiting: list[_Waiting] = []

    def take(self, worker: int, request: Request, answer: Callable[[Reply], None]) -> None:
        """Answers now, or when other workers' requests have let this one by. Raises what the shard raises.

        Raises MismatchError if a mean lacks a worker that has left.
        """
        self.queue[len(self._waiting)] += 1
        self._waiting.append(_Waiting(worker, request, answer))
        while self._pass_one():
            pass
        gone = [other for other in self._gate.slowest() if other in self._gate.left]
        ahead = [other for other in self._gate.clocks if self._gate.lead(other)]
        if gone and ahead:
            raise MismatchError(
                f"parameter server, rank {self._rank}: rank {gone[0]} left after {self._gate.clocks[gone[0]]} pushes, "
                f"rank {ahead[0]} made {self._gate.clocks[ahead[0]]}; in mode sync all make as many"
            )

    def check_deadline(self, timeout: float) -> None:
        """Raises Timeout if a request has waited for longer."""
        for waiting in self._waiting:
            if time.monotonic() - waiting.since > timeout:
                if waiting.request.load is not None:
                    missing = ", ".join(str(worker) for worker in sorted(self._present() - self._loading().keys()))
                    raise Timeout(
                        f"parameter server, rank {self._rank}: rank {waiting.worker} called load_state_dict and waited "
                        f"{timeout:g} s for rank {missing} to do so"
                    )
                slow = ", ".join(str(worker) for worker in self._gate.slowest())
                raise Timeout(
                    f"parameter server, rank {self._rank}: rank {waiting.worker}, after "
                    f"{self._gate.clocks[waiting.worker]} pushes, waited {timeout:g} s for rank {slow}, after "
                    f"{self._gate.lowest()}"
                )

    def waiting(self) -> int:
        """Requests that wait now."""
        return len(self._waiting)

    def _pass_one(self) -> bool:
        """Lets one request move on; False if none can."""
        loading = self._loading()
        if loading and loading.keys() == self._present():
            self._load(loading)
            return True
        for waiting in self._waiting:
            if waiting.request.load is None and (waiting.request.leave or self._gate.open(waiting.worker)):
                self._move(waiting)
                return True
        return False

    def _present(self) -> set[int]:
        return set(self._gate.clocks) - self._gate.left

    def _loading(self) -> dict[int, _Waiting]:
        return {waiting.worker: waiting for waiting in self._waiting if waiting.request.load is not None}

    def _load(self, loading: dict[int, _Waiting]) -> None:
        """Of all that were given, the lowest rank's holds."""
        request = loading[min(loading)].request
        if request.options is not None:
            self._store.set_options(request.options)
        self._store.load(request.load)
        for waiting in loading.values():
            self._waiting.remove(waiting)
            reply = Reply(self._store.version)
            reply.entries = self._store.exact([loaded.piece for loaded in request.load or []])
            waiting.answer(reply)

    def _move(self, waiting: _Waiting) -> None:
        worker, request = waiting.worker, waiting.request
        if request.options is not None:
            self._store.set_options(request.options)
            request.options = None
        if request.push is not None:
            self.lag[self._store.version - request.base] += 1
            self._store.collect(worker, request.push, request.tables)
            request.push = None
            self._gate.advance(worker)
            if not self._gate.mode.averages or self._gate.lowest() > self._store.version:
                self._store.update()
            if not self._gate.open(worker) and (request.pull is not None or request.state):
                return
        self._waiting.remove(waiting)
        reply = Reply(self._store.version)
        if request.leave:
            self._gate.leave(worker)
        if request.pull is not None:
            self.staleness[self._gate.lead(worker)] += 1
            reply.entries = self._store.read(worker, request.pull)
        if request.state:
            reply.state = self._store.state()
            reply.entries = self._store.exact(request.exact)
        waiting.answer(reply)
