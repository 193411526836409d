"""The communicator: _core's collectives, and what is easier said in Python: groups, symmetric memory, start and end."""

from __future__ import annotations

import atexit
import math
import operator
import os
import sys
import threading
import weakref
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import numpy as np

from . import _core, launcher
from .bootstrap import Group, make_group
from .errors import Error, InvalidArgument, TransportError
from .exchange import AloneExchange, GroupExchange, MpiExchange, StoreExchange
from .settings import Settings, log
from .symmetric import SymmetricHeap

_live: weakref.WeakSet[Communicator] = weakref.WeakSet()
_world: Communicator | None = None
_world_lock = threading.Lock()


class Communicator(_core.Communicator):
    """A group of ranks and the collectives between them. Made by `pycoll.init()`, `split`, `dup` or `from_mpi`.

    Calls of one communicator are made by all its ranks in the same order. Several threads of one process need a
    communicator each (`dup`).
    """

    def __init__(self, group: Group, mpi: Any | None = None, mpi_handle: int = 0) -> None:
        settings = group.settings
        global _pid
        _pid = os.getpid()
        super().__init__(group.node, group.world, settings.timeout, settings.algo, group.node_of, settings.rules)
        self._settings = settings
        self._hosts, self._node_of = group.hosts, group.node_of
        self._mpi_module, self._mpi_handle, self._owns_mpi_handle = mpi, mpi_handle, False
        self._heap = SymmetricHeap(self)
        self._derived: weakref.WeakSet[Communicator] = weakref.WeakSet()  # split from it, and from these in turn
        # Of it and all that it was split from.
        self._within: tuple[weakref.WeakSet[Communicator], ...] = (self._derived,)
        _live.add(self)
        found = self._settle()
        if self.node_size > 1 and self.node_rank == 0:
            log.info("%d ranks on %s: %s", self.node_size, self._hosts[self.rank], found)

    # ---- Groups

    @staticmethod
    def from_mpi(comm: Any, timeout: float | None = None, transport: str | None = None) -> Communicator:
        """A communicator over the ranks of mpi4py's `comm`. Collective over it."""
        settings = Settings.from_environment(timeout, transport)
        mpi = launcher.load_mpi()
        _initialize(mpi)
        handle = int(comm.handle)
        return Communicator(make_group(MpiExchange(mpi, handle, settings.timeout), settings, mpi, handle), mpi, handle)

    @property
    def mpi(self) -> Any:
        """The mpi4py communicator of the same ranks. Raises TransportError if the ranks were not started by MPI."""
        if not self._mpi_module:
            raise TransportError("mpi: these ranks were not started by MPI, so there is no MPI communicator")
        from mpi4py import MPI

        return MPI.Comm.fromhandle(self._mpi_handle)

    @property
    def hosts(self) -> list[str]:
        """Host name of every rank, in rank order."""
        return list(self._hosts)

    def split(self, color: int | None, key: int = 0) -> Communicator | None:
        """One new communicator for each color, ranks in it ordered by (key, rank here). Collective; None gets none.

        color: at least 0, or None.
        """
        wanted = -1 if color is None else _whole(color, "color", self.rank)
        if color is not None and wanted < 0:
            raise InvalidArgument(f"split: rank {self.rank} got color {color}, wanted at least 0, or None")
        key = _whole(key, "key", self.rank)
        table = self.allgather(np.array([wanted, key], dtype=np.int64)).reshape(self.size, 2)
        members = sorted(
            (rank for rank in range(self.size) if table[rank, 0] == wanted), key=lambda r: (table[r, 1], r)
        )
        handle = self._mpi_module.split(self._mpi_handle, wanted, key, self.timeout) if self._mpi_module else 0
        exchange = GroupExchange(self, members)
        if color is None:
            _follow(exchange)
            return None
        part = Communicator(make_group(exchange, self._settings, self._mpi_module, handle), self._mpi_module, handle)
        part._owns_mpi_handle = handle != 0
        part._within = (*self._within, part._derived)
        for derived in self._within:
            derived.add(part)
        return part

    def dup(self) -> Communicator:
        """A communicator of the same ranks whose operations are apart from this one's. Collective."""
        duplicate = self.split(0, self.rank)
        assert duplicate is not None
        return duplicate

    # ---- Symmetric memory

    def empty(self, shape: int | Sequence[int], dtype: Any = np.float32) -> Any:
        """A new array that the other ranks of the node can reach: collectives over it copy nothing. Collective.

        shape: the same number of bytes on every rank. dtype: a NumPy dtype gives a NumPy array, a torch dtype a torch
        tensor. Contents are zero. Lives as any array does; memory goes when all ranks have dropped theirs.
        """
        dims = (shape,) if isinstance(shape, int) else tuple(int(n) for n in shape)
        if any(n < 0 for n in dims):
            raise InvalidArgument(f"empty: rank {self.rank} got shape {dims}, wanted no negative numbers")
        count = math.prod(dims)
        if _is_torch_dtype(dtype):
            import torch

            memory = self._heap.allocate(count * torch.empty((), dtype=dtype).element_size())
            return (
                torch.frombuffer(memory, dtype=dtype, count=count).reshape(dims)
                if count
                else torch.empty(dims, dtype=dtype)
            )
        kind = np.dtype(dtype)
        memory = self._heap.allocate(count * kind.itemsize)
        return np.frombuffer(memory, dtype=kind, count=count).reshape(dims) if count else np.empty(dims, kind)

    # ---- Beginning and end

    def close(self) -> None:
        """Waits for operations under way, then leaves: peers that still call raise PeerFailed. Idempotent."""
        self._close()
        if self._owns_mpi_handle and self._mpi_module and not self.failed:
            self._mpi_module.release(self._mpi_handle)
            self._owns_mpi_handle = False

    def __enter__(self) -> Communicator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            # A rank that has failed comes to none of these, and who waits for it there must not wait for long.
            for comm in (self, *self._derived):
                comm._abort(f"ended with {kind.__name__}: {error}"[:400])
        self.close()

    def __repr__(self) -> str:
        return f"<pycoll.Communicator rank {self.rank} of {self.size} over {self.transport}>"


def init(timeout: float | None = None, transport: str | None = None) -> Communicator:
    """The communicator of all ranks; the same one at every call. Collective at the first.

    Finds out how the process was started: mpirun or srun (MPI, shared with mpi4py), torchrun or torch.multiprocessing
    (the environment's store; one node), or alone (one rank).

    timeout: deadline of every operation in seconds (300, or PYCOLL_TIMEOUT). transport: "shm", "mpi" or "auto" (shared
    memory on one node, MPI between nodes; PYCOLL_TRANSPORT). Both are of the first call; a later one that asks for
    something else raises InvalidArgument.
    """
    global _world
    with _world_lock:
        if _world is not None and not _world.closed:
            if timeout is not None and timeout != _world.timeout:
                raise InvalidArgument(
                    f"init: the world has a timeout of {_world.timeout} s, wanted {timeout}; set comm.timeout"
                )
            if transport not in (None, "auto", _world._settings.transport):
                raise InvalidArgument(f"init: the world has transport {_world._settings.transport}, wanted {transport}")
            return _world
        _world = _make_world(Settings.from_environment(timeout, transport))
        return _world


def _make_world(settings: Settings) -> Communicator:
    by_store = launcher.store_launcher() and int(os.environ["WORLD_SIZE"]) > 1
    # A library that imports mpi4py does not make ranks that torchrun started into MPI's.
    if launcher.mpi_launcher() or (launcher.mpi4py_initialized() and not by_store):
        mpi = launcher.load_mpi()
        _initialize(mpi)
        handle = mpi.world()
        return Communicator(make_group(MpiExchange(mpi, handle, settings.timeout), settings, mpi, handle), mpi, handle)
    if by_store:
        return Communicator(make_group(_store_exchange(settings.timeout), settings))
    return Communicator(make_group(AloneExchange(), settings))


def _store_exchange(timeout: float) -> StoreExchange:
    try:
        import torch.distributed as dist
    except ImportError:
        raise TransportError(
            "init: RANK, WORLD_SIZE and MASTER_ADDR are set as by torchrun, but torch, whose store they name, "
            "cannot be imported"
        ) from None
    from datetime import timedelta

    store, rank, size = next(dist.rendezvous("env://", timeout=timedelta(seconds=min(timeout, 1e8))))
    # The store outlives a communicator of ours, and restarts of the group: each has a number of its own.
    _store_exchange.count += 1  # type: ignore[attr-defined]
    restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return StoreExchange(dist.PrefixStore(f"pycoll/{restart}/{_store_exchange.count}", store), rank, size, timeout)  # type: ignore[attr-defined]


_store_exchange.count = 0  # type: ignore[attr-defined]


def _follow(exchange: GroupExchange) -> None:
    """The steps of make_group, by ranks that get no communicator: the exchanges are collective over the parent."""
    for _ in range(3):
        exchange.allgather(b"")


def _whole(number: Any, name: str, rank: int) -> int:
    try:
        whole = operator.index(number)
    except TypeError:
        whole = 1 << 31
    if not -(1 << 31) <= whole < 1 << 31:
        raise InvalidArgument(f"split: rank {rank} got {name} {number!r}, wanted a whole number of at most 31 bits")
    return whole


def _is_torch_dtype(dtype: Any) -> bool:
    return type(dtype).__module__ == "torch"


_finalize_mpi = False
_pid = os.getpid()


def _initialize(mpi: Any) -> None:
    global _finalize_mpi
    level, by_us = mpi.initialize()
    _finalize_mpi |= by_us
    if level < mpi.THREAD_MULTIPLE:
        raise TransportError(
            f"init: MPI was initialised with thread level {level}, wanted MPI_THREAD_MULTIPLE ({mpi.THREAD_MULTIPLE}); "
            "import pycoll before mpi4py, or leave mpi4py.rc.thread_level at its default"
        )


#: Seconds that operations get at exit: nobody will look at them any more, but a message may still be on its way.
_LAST_SECONDS = 10.0


@atexit.register
def _leave() -> None:
    """At exit: a program that ends with an exception tells its peers at once; any other waits for what is under way.

    Not for long: two ranks may each have a receive that the other will never serve.
    """
    if os.getpid() != _pid:
        return  # a fork of a rank is not a rank
    error = getattr(sys, "last_value", None)
    healthy = error is None
    for comm in list(_live):
        try:
            if error is not None:
                comm._abort(f"ended with {type(error).__name__}: {error}"[:400])
            healthy &= not comm.failed
            comm.timeout = min(comm.timeout, _LAST_SECONDS)
            comm.close()
        except Error:
            healthy = False
    if _finalize_mpi and healthy:
        launcher.load_mpi().finalize()


__all__ = ["Communicator", "init"]
