"""Master and workers: a concurrent.futures.Executor whose workers are the other ranks."""

from __future__ import annotations

import collections
import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pycoll

from .arguments import check_whole
from .errors import Error, InvalidArgument, PeerFailed
from .outcome import Call, Chunk, answer, attempt, chunk, settle
from .parcel import Parcel, receive
from .settings import log

if TYPE_CHECKING:
    from .comm import Communicator

_SLICE = 0.002  # seconds that a batch should take: a hundred times what sending it does
_BYTES = 4 << 20  # that a batch and its answer should have at most
_MOST = 16384  # tasks a batch
_AHEAD = 4096  # bytes a batch may have to be sent before the one before is answered: no send of it has to wait
_PING = 30.0  # seconds between signs of life to a worker that has nothing to do


@dataclass(eq=False)
class Task:
    call: Call
    future: Future[Any]
    deaths: int  # that it may still survive
    alone: bool = False  # in a batch of its own
    nbytes: float = 0.0  # that it and its answer travelled as


@dataclass(eq=False)
class Worker:
    """What the master knows of a rank."""

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
    has answered. Functions and arguments are pickled; the memory of NumPy arrays in them, and in results, travels as it
    is. A rank that is alone calls functions where they are submitted.

    When a worker dies, what it had not answered goes to another one; no task is repeated whose result had come. The
    launcher must let the others live: ``mpirun --enable-recovery`` (Open MPI), ``-disable-auto-cleanup`` (MPICH). When
    the master dies, the workers raise PeerFailed.

    Args:
        comm: the ranks, by default ``pycoll.init()``.
        retries: how often a task is tried again whose worker died, or that raised one of `retry_on`.
        retry_on: exceptions after which its worker tries a task again.
        waiting: `submit` waits while so many tasks do.
        timeout: seconds in which a batch must be answered, or its worker counts as dead; by default comm's.

    Raises:
        InvalidArgument: an argument is wrong. A future raises what its task raised; PeerFailed if its workers died once
        more than `retries`, or none is left.
    """

    def __init__(
        self,
        comm: Communicator | None = None,
        *,
        retries: int = 2,
        retry_on: tuple[type[Exception], ...] = (),
        waiting: int = 65536,
        timeout: float | None = None,
    ) -> None:
        comm = pycoll.init() if comm is None else comm
        check_whole("TaskPool", "retries", retries, 0)
        check_whole("TaskPool", "waiting", waiting, 1)
        self.rank, self.size = comm.rank, comm.size
        self._retries, self._retry_on, self._room = retries, tuple(retry_on), waiting
        self._tasks: collections.deque[Task] = collections.deque()
        self._changed = threading.Condition()
        self._closing = False
        self._workers: list[Worker] = []
        self._master: Communicator | None = None  # of a worker: the pair with the master
        for rank in range(1, comm.size):
            pair = comm.split(0 if comm.rank in (0, rank) else None)
            if pair is None:
                continue
            pair.timeout = comm.timeout if timeout is None else timeout
            if comm.rank == 0:
                self._workers.append(Worker(rank, pair))
            else:
                self._master = pair
        self._living = len(self._workers)
        self._threads = [
            threading.Thread(target=self._attend, args=(worker,), name=f"pool: rank {worker.rank}", daemon=True)
            for worker in self._workers
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
        if self.size == 1:
            task.future.set_running_or_notify_cancel()
            settle(task.future, attempt(call, self._retries, self._retry_on))
            return task
        with self._changed:
            self._changed.wait_for(lambda: len(self._tasks) < self._room or self._closing or not self._living)
            if self._closing or self._master:
                raise RuntimeError("cannot submit to a TaskPool that is shut down, or on a rank that works")
            if not self._living:
                raise PeerFailed(f"TaskPool: none of its {self.size - 1} workers is left")
            self._tasks.append(task)
            self._changed.notify_all()
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

        timeout: seconds from now until a result must be there, else TimeoutError. chunksize: calls a task; 0: as many
        as take about two milliseconds. ordered: in the inputs' order, else as they come. Raises what a call raised
        where its result would be.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        columns = _columns(iterables)
        came: queue.SimpleQueue[Future[Chunk]] = queue.SimpleQueue()
        open_: dict[Future[Chunk], Task] = {}  # in the inputs' order
        many = chunksize or 1

        def results() -> Iterator[Any]:
            nonlocal many
            try:
                while True:
                    while len(open_) < 4 * max(self._living, 1) and (calls := columns(many)):
                        task = self._put((chunk, (function, calls, self._retries, self._retry_on), {}))
                        open_[task.future] = task
                        if not ordered:
                            task.future.add_done_callback(came.put)
                    if not open_:
                        return
                    left = None if deadline is None else max(deadline - time.monotonic(), 0)
                    try:
                        future = next(iter(open_)) if ordered else came.get(timeout=left)
                    except queue.Empty:
                        raise TimeoutError from None
                    done = future.result(left)
                    task = open_.pop(future)
                    if not chunksize:
                        many = _as_many(len(done.results), done.seconds, task.nbytes, many)
                    yield from done.results
                    if done.error is not None:
                        raise done.error
            finally:
                for future in open_:
                    future.cancel()

        return results()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Lets workers go once all tasks are done. cancel_futures: those that wait are cancelled."""
        with self._changed:
            self._closing = True
            if cancel_futures:  # not those that a dead worker had begun
                self._tasks = collections.deque(task for task in self._tasks if not task.future.cancel())
            self._changed.notify_all()
        if wait:
            for thread in self._threads:
                thread.join()

    def stats(self) -> dict[int, int]:
        """Tasks that each worker has answered; a chunk of `map` is one."""
        return {worker.rank: worker.done for worker in self._workers}

    def __enter__(self) -> TaskPool | None:  # type: ignore[override]
        if self._master:
            self.serve()
            return None
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.shutdown(cancel_futures=kind is not None)

    def _attend(self, worker: Worker) -> None:
        """A thread of the master, for one worker."""
        try:
            while True:
                while len(worker.out) < 2 and self._take(worker):
                    parcel = self._pack(worker)
                    if not parcel:
                        continue
                    if len(worker.out) > 1 and parcel.nbytes > _AHEAD:
                        self._answered(worker)
                    parcel.send(worker.pair, 1)
                if worker.out:
                    self._answered(worker)
                elif self._over():
                    break
                else:
                    Parcel(None).send(worker.pair, 1)
            Parcel(False).send(worker.pair, 1)
            worker.pair.close()
        except Exception as error:
            self._bury(worker, error)

    def _over(self) -> bool:
        """Nothing will be done any more: nobody dies with a task that another would have to take."""
        return self._closing and not self._tasks and not any(worker.out for worker in self._workers)

    def _take(self, worker: Worker) -> bool:
        """Gives the worker a batch. Waits for one if it has none; False if none came for a while, or none will."""
        with self._changed:
            if not worker.out:
                patience = min(_PING, worker.pair.timeout / 4)
                self._changed.wait_for(lambda: self._tasks or self._over(), patience)
            most = min(worker.size, -(-len(self._tasks) // max(self._living, 1)))
            batch: list[Task] = []
            while self._tasks and len(batch) < most and not (batch and (self._tasks[0].alone or batch[0].alone)):
                task = self._tasks.popleft()
                if task.future.running() or task.future.set_running_or_notify_cancel():
                    batch.append(task)
            if batch:
                worker.out.append(batch)
            self._changed.notify_all()
            return bool(batch)

    def _pack(self, worker: Worker) -> Parcel | None:
        """The worker's newest batch; None if a call cannot be pickled: it fails, the others go back."""
        batch = worker.out[-1]
        try:
            parcel = Parcel(([task.call for task in batch], self._retries, self._retry_on))
        except Exception as error:
            worker.out.pop()
            self._divide(batch, error)
            return None
        for task in batch:
            task.nbytes = parcel.nbytes / len(batch)
        return parcel

    def _answered(self, worker: Worker) -> None:
        """Waits for the answer to the worker's oldest batch."""
        try:
            (seconds, outcomes), nbytes = receive(worker.pair, 1)
        except Error:
            raise
        except Exception as error:  # cannot be unpickled
            seconds, outcomes, nbytes = 0.0, error, 0
        batch = worker.out[0]
        if isinstance(outcomes, Exception):
            self._divide(batch, outcomes)
        else:
            for task, outcome in zip(batch, outcomes, strict=True):
                task.nbytes += nbytes / len(batch)
                settle(task.future, outcome)
            worker.done += len(batch)
            worker.size = _as_many(len(batch), seconds, sum(task.nbytes for task in batch), worker.size)
        with self._changed:
            worker.out.popleft()
            self._changed.notify_all()

    def _divide(self, batch: list[Task], error: Exception) -> None:
        """What failed as a whole is tried again one by one; what was alone fails."""
        if len(batch) == 1:
            batch[0].future.set_exception(error)
        else:
            self._again(batch)

    def _again(self, tasks: list[Task]) -> None:
        """To the head of the queue, each for a batch of its own."""
        with self._changed:
            for task in reversed(tasks):
                task.alone = True
                self._tasks.appendleft(task)
            self._changed.notify_all()

    def _bury(self, worker: Worker, error: Exception) -> None:
        """Its pair has failed: what it had not answered goes to the others."""
        with self._changed:
            self._living -= 1
            lost = [task for batch in worker.out for task in batch]
            for task in lost:
                task.deaths -= 1
            again = [task for task in lost if self._living and task.deaths >= 0]
            self._again(again)
            worker.out.clear()
            failed = [task for task in lost if task not in again]
            if not self._living:
                failed += self._tasks
                self._tasks.clear()
        log.warning("TaskPool: rank %d failed, %d of its tasks go to others: %s", worker.rank, len(again), error)
        for task in failed:
            if task.future.running() or task.future.set_running_or_notify_cancel():
                task.future.set_exception(PeerFailed(f"TaskPool: rank {worker.rank} failed: {error}"))
        worker.pair._abort(f"TaskPool: given up: {error}"[:400])

    # ---- A worker's

    def serve(self) -> None:
        """Works until the master shuts the pool down. For ranks other than 0; ``with`` does it."""
        if not self._master:
            raise InvalidArgument(f"TaskPool: rank {self.rank} is the master, which does not serve")
        try:
            while self._obey(self._master):
                pass
        except BaseException as error:
            self._master._abort(f"ended with {type(error).__name__}: {error}"[:400])
            raise
        self._master.close()

    def _obey(self, master: Communicator) -> bool:
        """One order; False if it was the last."""
        try:
            order, _ = receive(master, 0)
        except Error:
            raise
        except Exception as error:  # cannot be unpickled here
            answer((0.0, error)).send(master, 0)
            return True
        if order:
            calls, retries, retry_on = order
            begin = time.perf_counter()
            outcomes = [attempt(call, retries, retry_on) for call in calls]
            answer((time.perf_counter() - begin, outcomes)).send(master, 0)
        return order is not False  # None is a sign of life


def _as_many(done: int, seconds: float, nbytes: float, before: int) -> int:
    """How many tasks make a batch if `done` of them took so long and so many bytes; grows fourfold at most."""
    fit = min(_SLICE / max(seconds, 1e-9), _BYTES / max(nbytes, 1))
    return min(max(int(done * fit), 1), 4 * before, _MOST)


def _columns(iterables: tuple[Iterable[Any], ...]) -> Callable[[int], list[Any]]:
    """f(count): the next elements of each iterable, as many, up to count; [] at the end. Read as zip reads them."""
    if len(iterables) == 1:
        elements = iter(iterables[0])
        return lambda count: [column] if (column := list(itertools.islice(elements, count))) else []
    rows = zip(*iterables, strict=False)
    return lambda count: list(zip(*itertools.islice(rows, count), strict=True))


__all__ = ["TaskPool"]
