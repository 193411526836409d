"""Master and workers: a concurrent.futures.Executor whose workers are the other ranks."""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pycoll

from ..arguments import check_whole
from ..errors import InvalidArgument, PeerFailed, Timeout
from ..parcel import Parcel, receive
from ..settings import log
from .mapping import Mapping
from .outcome import Call, Raised, attempt
from .task import Task, as_many
from .worker import Worker, renamed

if TYPE_CHECKING:
    from ..comm import Communicator

_AHEAD = 4096  # bytes a batch may have to be sent before the one before is answered: no send of it has to wait
_PING = 30.0  # seconds between signs of life to a worker that has nothing to do


@dataclass(eq=False)
class Peer:
    """What the master knows of a rank that works."""

    rank: int
    pair: Communicator  # of the master and this rank alone: when it dies, the others' communicators live
    size: int = 1  # of its next batch
    out: collections.deque[list[Task]] = field(default_factory=collections.deque)  # batches it has not answered
    done: int = 0


class TaskPool(Executor):
    """Calls functions on the other ranks. Construction is collective; rank 0 is the master, all others work.

    ::

        with pycoll.TaskPool() as pool:
            if pool:  # rank 0; the others come here when all is done, with None
                total = sum(pool.map(simulate, range(100_000)))

    A rank that is free gets the next tasks, so many at once as take about two milliseconds, and the next ones before it
    has answered; what it has not begun after 25 ms goes back. Functions and arguments are pickled; the memory of NumPy
    arrays and torch tensors (dense, on the CPU) in them, and in results, travels as it is. A rank that is alone calls
    functions where they are submitted.

    A task may take as long as it likes: its worker gives signs of life meanwhile, from a thread. When a worker dies,
    what it had not answered goes to another one; no task is repeated whose result had come. The launcher must let the
    others live: ``mpirun --enable-recovery`` (Open MPI), ``-disable-auto-cleanup`` (MPICH). When the master dies, the
    workers raise PeerFailed.

    Args:
        comm: the ranks, by default ``pycoll.init()``.
        retries: how often a task is tried again whose worker died, or that raised one of `retry_on`.
        retry_on: exceptions after which its worker tries a task again.
        waiting: `submit` waits while so many tasks do, but for a future's callback.
        timeout: seconds without a sign of life after which a worker counts as dead, as its process is stopped, say, or
            a task keeps Python's lock; by default comm's.

    Raises:
        InvalidArgument: an argument is wrong. A future raises what its task raised, SystemExit as well, with the
        traceback on its rank as the cause; PeerFailed if its workers died once more than `retries`, or none is left.
    """

    def __init__(
        self,
        comm: Communicator | None = None,
        *,
        retries: int = 2,
        retry_on: type[BaseException] | tuple[type[BaseException], ...] = (),
        waiting: int = 65536,
        timeout: float | None = None,
    ) -> None:
        comm = pycoll.init() if comm is None else comm
        check_whole("TaskPool", "retries", retries, 0)
        check_whole("TaskPool", "waiting", waiting, 1)
        kinds = retry_on if isinstance(retry_on, tuple) else (retry_on,)
        if not all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds):
            raise InvalidArgument(f"TaskPool: rank {comm.rank} got retry_on {retry_on!r}, wanted classes of exceptions")
        if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or timeout <= 0):
            raise InvalidArgument(
                f"TaskPool: rank {comm.rank} got timeout {timeout!r}, wanted seconds above 0, or None"
            )
        self.rank, self.size = comm.rank, comm.size
        self._retries, self._retry_on, self._room = retries, kinds, waiting
        self._tasks: collections.deque[Task] = collections.deque()
        self._changed = threading.Condition()
        self._closing = False
        self._peers: list[Peer] = []
        self._worker: Worker | None = None
        for rank in range(1, comm.size):
            pair = comm.split(0 if comm.rank in (0, rank) else None)
            if pair is None:
                continue
            pair.timeout = comm.timeout if timeout is None else timeout
            if comm.rank == 0:
                self._peers.append(Peer(rank, pair))
            else:
                self._worker = Worker(rank, pair)
        self._living = len(self._peers)
        self._threads = [
            threading.Thread(target=self._attend, args=(peer,), name=f"pool: rank {peer.rank}", daemon=True)
            for peer in self._peers
        ]
        for thread in self._threads:
            thread.start()

    # ---- The master's

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """A future of ``function(*args, **kwargs)``, called on some rank."""
        return self._put((function, args, kwargs)).future

    def _put(self, call: Call) -> Task:
        """A task that waits, is being done, or, where there is one rank alone, is done."""
        task = Task(call, Future(), self._retries)
        with self._changed:
            # Of the threads of the pool, which callbacks run in, none may wait for what they themselves would do.
            own = threading.current_thread() in self._threads
            self._changed.wait_for(
                lambda: len(self._tasks) < self._room or self._closing or own or (self._peers and not self._living)
            )
            if self._closing or self._worker:
                raise RuntimeError("cannot submit to a TaskPool that is shut down, or on a rank that works")
            if self._peers and not self._living:
                raise PeerFailed(f"TaskPool: none of its {self.size - 1} workers is left")
            if self._peers:
                self._tasks.append(task)
                self._changed.notify_all()
        if not self._peers:
            task.future.set_running_or_notify_cancel()
            task.settle(attempt(call, self._retries, self._retry_on))
        return task

    def map(
        self,
        function: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 0,
        ordered: bool = True,
    ) -> Iterator[Any]:
        """Results of `function` for each tuple of the iterables' elements, which are taken as workers need them.

        Calls are made as results are taken, four chunks a worker ahead, so that inputs may be endless; without a look
        at its results none is made. timeout: seconds from now until a result must be there, else TimeoutError.
        chunksize: calls a task; 0: as many as take about two milliseconds. ordered: in the inputs' order, else as they
        come. Raises what a call raised where its result would be.
        """
        check_whole("TaskPool.map", "chunksize", chunksize, 0)
        mapping = Mapping(
            self._put,
            lambda: 4 * max(self._living, 1),
            function,
            iterables,
            retries=self._retries,
            retry_on=self._retry_on,
            chunksize=chunksize,
            ordered=ordered,
        )
        return mapping.results(None if timeout is None else time.monotonic() + timeout)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Lets workers go once all tasks are done. cancel_futures: those that wait are cancelled."""
        with self._changed:
            self._closing = True
            if cancel_futures:  # not those that a dead worker had begun
                cancelled = [task for task in self._tasks if task.future.cancel()]
                self._tasks = collections.deque(task for task in self._tasks if not task.future.cancelled())
                for task in cancelled:
                    task.future.set_running_or_notify_cancel()  # whoever waits for it goes on
            self._changed.notify_all()
        if wait:
            for thread in self._threads:
                thread.join()

    def stats(self) -> dict[int, int]:
        """Tasks that each worker has answered; a chunk of `map` is one."""
        return {peer.rank: peer.done for peer in self._peers}

    def __enter__(self) -> TaskPool | None:  # type: ignore[override]
        if self._worker:
            self.serve()
            return None
        return self

    def serve(self) -> None:
        """Works until the master shuts the pool down. For ranks other than 0; ``with`` does it."""
        if not self._worker:
            raise InvalidArgument(f"TaskPool: rank {self.rank} is the master, which does not serve")
        self._worker.serve()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.shutdown(cancel_futures=kind is not None)

    # ---- Inside

    def _attend(self, peer: Peer) -> None:
        """A thread of the master, for one worker."""
        try:
            while True:
                while len(peer.out) < 2 and self._take(peer):
                    parcel = self._pack(peer)
                    if not parcel:
                        continue
                    if len(peer.out) > 1 and parcel.nbytes > _AHEAD:
                        self._answered(peer)
                    parcel.send(peer.pair, 1)
                if peer.out:
                    self._answered(peer)
                elif self._over():
                    break
                else:
                    Parcel(None).send(peer.pair, 1)
            Parcel(False).send(peer.pair, 1)
            peer.pair.close()
        except BaseException as error:
            self._bury(peer, error)

    def _over(self) -> bool:
        """Nothing will be done any more: nobody dies with a task that another would have to take."""
        return self._closing and not self._tasks and not any(peer.out for peer in self._peers)

    def _take(self, peer: Peer) -> bool:
        """Gives the worker a batch. Waits for one if it has none; False if none came for a while, or none will."""
        with self._changed:
            if not peer.out:
                patience = min(_PING, peer.pair.timeout / 4)
                self._changed.wait_for(lambda: self._tasks or self._over(), patience)
            most = min(peer.size, -(-len(self._tasks) // max(self._living, 1)))
            batch: list[Task] = []
            while self._tasks and len(batch) < most and not (batch and (self._tasks[0].alone or batch[0].alone)):
                task = self._tasks.popleft()
                if task.future.running() or task.future.set_running_or_notify_cancel():
                    task.rank = peer.rank
                    batch.append(task)
            if batch:
                peer.out.append(batch)
            self._changed.notify_all()
            return bool(batch)

    def _pack(self, peer: Peer) -> Parcel | None:
        """The worker's newest batch; None if a call cannot be pickled: it fails, the others go back."""
        batch = peer.out[-1]
        try:
            parcel = Parcel(([task.call for task in batch], self._retries, self._retry_on))
        except Exception as error:
            peer.out.pop()
            self._divide(batch, error)
            return None
        for task in batch:
            task.nbytes = parcel.nbytes / len(batch)
        return parcel

    def _answered(self, peer: Peer) -> None:
        """Waits for the answer to the worker's oldest batch: outcomes of its first tasks, the others go back."""
        batch, content = peer.out[0], None
        while content is None:  # a sign of life
            arrival = receive(peer.pair, 1)
            try:
                content = arrival.open()
            except Exception as error:  # cannot be unpickled
                content = 0.0, Raised(error)
        seconds, outcomes = content
        rest: list[Task] = []
        if isinstance(outcomes, Raised):
            self._divide(batch, outcomes.on(peer.rank))
        else:
            done, rest = batch[: len(outcomes)], batch[len(outcomes) :]
            for task, outcome in zip(done, outcomes, strict=True):
                task.nbytes += arrival.nbytes / len(done)
                task.settle(outcome)
            peer.done += len(done)
            peer.size = as_many(len(done), seconds, sum(task.nbytes for task in done), peer.size)
        with self._changed:
            peer.out.popleft()
            self._tasks.extendleft(reversed(rest))
            self._changed.notify_all()

    def _divide(self, batch: list[Task], error: BaseException) -> None:
        """What failed as a whole is tried again one by one; what was alone fails."""
        if len(batch) == 1:
            batch[0].fail(error)
        else:
            self._apart(batch)

    def _apart(self, tasks: list[Task]) -> None:
        """To the head of the queue, each for a batch of its own."""
        with self._changed:
            for task in reversed(tasks):
                task.alone = True
                self._tasks.appendleft(task)
            self._changed.notify_all()

    def _bury(self, peer: Peer, error: BaseException) -> None:
        """Its pair has failed: what it had not answered goes to the others."""
        how = renamed(str(error), peer.rank)
        if isinstance(error, Timeout):
            how = f"gave no sign of life for {peer.pair.timeout:g} s"
        with self._changed:
            self._living -= 1
            begun = peer.out[0] if peer.out else []
            for task in begun:
                task.deaths -= 1
            lost = [task for batch in peer.out for task in batch]
            # Of several, any may be the one that it died of.
            guilty = begun if len(begun) == 1 and begun[0].deaths < 0 else []
            again = [task for task in lost if self._living and task not in guilty]
            self._apart(again)
            peer.out.clear()
            failed = [task for task in lost if task not in again]
            if not self._living:
                failed += self._tasks
                self._tasks.clear()
        log.warning("TaskPool: rank %d failed, %d of its tasks go to others: %s", peer.rank, len(again), how)
        for task in failed:
            task.fail(PeerFailed(f"TaskPool: rank {peer.rank} failed: {how}", peer.rank))
        peer.pair._abort(f"TaskPool: given up: {how}"[:400])


__all__ = ["TaskPool"]
