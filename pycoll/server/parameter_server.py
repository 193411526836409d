"""Parameters that servers hold and update, and workers read and send gradients for."""

from __future__ import annotations

import atexit
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

import pycoll

from ..agree import check_agreement
from ..buckets import Named
from ..codec import Codec, Identity, most_bytes
from ..compression import Compression
from ..during import during
from ..errors import InvalidArgument, MismatchError, PeerFailed
from ..parameters import describe
from ..replicate import broadcast_state_dict, broadcast_tensors, group_facts
from ..settings import log
from .arguments import check_rebuilds, named_of, ranks_of
from .client import Client
from .desk import Desk
from .ending import Ending
from .gate import Gate, Mode, mode_of
from .pieces import cut
from .server import Server, tell
from .shard import Shard
from .state import check_cut
from .worker import Pending, Worker

if TYPE_CHECKING:
    from ..comm import Communicator


class ParameterServer(Ending):
    """Parameters sharded over servers; workers push gradients and pull parameters.

    ::

        with pycoll.ParameterServer(optimizer, model.named_parameters(), servers=[0], workers=[1, 2]) as ps:
            if ps.is_worker:
                for x, y in my_share_of_the_data:
                    loss(model(x), y).backward()
                    ps.push_pull({name: p.grad for name, p in model.named_parameters()})
                    model.zero_grad()
            else:
                ps.serve()

    A rank may be both: then its server runs in a thread beside its worker. :class:`PSOptimizer` does the pushing and
    pulling in an optimizer's step. Parameters are cut into pieces of rows, which consistent hashing deals out to the
    servers, balanced by bytes. Servers keep them in float32, and the optimizer's state with them; an optimizer whose
    update of an element depends on others of its tensor (LAMB, Muon) sees pieces instead of tensors.

    Construction is collective: it checks that ranks agree, then broadcasts parameters and the optimizer's state from
    rank 0. ``close()``, or leaving the ``with`` block, says that this worker has finished.

    Args:
        optimizer: any of torch.optim, over CPU parameters of float32, float16 or bfloat16, the same on every rank; each
            server builds one of its class for its pieces. It is not stepped itself. Of other classes, one whose
            constructor needs the parameters alone and keeps all else in their groups, and whose step() needs no
            closure.
        named_parameters: ``model.named_parameters()``.
        comm: the ranks, by default ``pycoll.init()``. Messages travel on a duplicate.
        servers, workers: ranks; by default all are both. Each rank is at least one of them.
        mode: "sync": an update is the mean of one push of every worker, and a pull has all updates that its worker had
            a part in. "async": each push is an update, and nobody waits. ``pycoll.server.bounded(s)``: each push is an
            update, but a worker that is more than `s` pushes ahead of the slowest waits.
        codec: how gradients are encoded, with error feedback kept by the worker. Vectors and parameters below 4 KiB
            stay float32.
        pull_codec: how parameters are encoded on the way back, as differences from what the worker has; each server
            then keeps what each worker has.
        piece_bytes: most bytes of a piece; by default a sixteenth of a server's even share, 4 KiB to 4 MiB.

    Raises:
        InvalidArgument: an argument is wrong.
        MismatchError: ranks disagree, on every rank.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        named_parameters: Iterable[Named],
        comm: Communicator | None = None,
        *,
        servers: Sequence[int] | None = None,
        workers: Sequence[int] | None = None,
        mode: str | Mode = "sync",
        codec: Codec | None = None,
        pull_codec: Codec | None = None,
        piece_bytes: int | None = None,
    ) -> None:
        parent = pycoll.init() if comm is None else comm
        self.mode = mode_of(mode)
        self._servers, self._workers = (
            ranks_of("servers", servers, parent.size),
            ranks_of("workers", workers, parent.size),
        )
        neither = set(range(parent.size)) - set(self._servers) - set(self._workers)
        if neither:
            raise InvalidArgument(f"ParameterServer: rank {min(neither)} is neither a server nor a worker")
        given = 1 if piece_bytes is None else piece_bytes
        if isinstance(given, bool) or not isinstance(given, int) or given < 1:
            raise InvalidArgument(f"ParameterServer: piece_bytes is {piece_bytes!r}, wanted at least 1")
        for each in (codec, pull_codec):
            if each is not None:
                most_bytes(each.at(0) if isinstance(each, Codec) else each, 1)  # raises here
        self._named = named_of(optimizer, named_parameters)
        check_rebuilds(optimizer, parent.rank)
        self._comm = parent.dup()
        self._comm.timeout = parent.timeout
        try:
            check_agreement(self._comm, "ParameterServer", self._facts(optimizer, codec, pull_codec, piece_bytes))
        except MismatchError:
            self._comm.close()
            raise
        parameters = [parameter for _, parameter in self._named]
        broadcast_tensors(self._comm, parameters, 0)
        broadcast_state_dict(self._comm, optimizer, 0)
        compressed = [Compression(Identity()).takes(parameter) for parameter in parameters]
        if piece_bytes is None:
            share = 4 * sum(parameter.numel() for parameter in parameters) // len(self._servers)
            piece_bytes = min(max(share // 16, 4 << 10), 4 << 20)
        self._pieces = cut(self._named, self._servers, piece_bytes, compressed)
        try:
            for piece in self._pieces:
                check_cut(optimizer.state.get(parameters[piece.parameter], {}), piece, parameters[piece.parameter])
        except InvalidArgument:
            self._comm.close()
            raise
        self._server = self._make_server(optimizer, parameters, pull_codec) if self.is_server else None
        self._worker: Worker | None = None
        self._serving: threading.Thread | None = None
        if self.is_worker:
            client = Client(self._comm, self._servers, self._server)
            self._worker = Worker(client, self._named, self._pieces, codec, pull_codec)
            if self._comm.rank == self._workers[0]:
                self._worker.follow(optimizer)
            if self._server is not None:
                self._serving = threading.Thread(target=_serve, args=(self._server,), name="pycoll-server", daemon=True)
                self._serving.start()
        self._closed = False
        atexit.register(self._end)

    @property
    def named_parameters(self) -> list[Named]:
        """The optimizer's parameters, each with the name that push and pull take."""
        return list(self._named)

    @property
    def is_server(self) -> bool:
        """True if this rank holds a shard."""
        return self._comm.rank in self._servers

    @property
    def is_worker(self) -> bool:
        """True if this rank pushes and pulls."""
        return self._comm.rank in self._workers

    def serve(self) -> None:
        """On a rank that is a server only: serves until all workers have closed.

        Raises Timeout if workers wait for another, or none calls, for longer than the communicator's timeout;
        MismatchError if in mode sync a worker left after fewer pushes than another made; PeerFailed.
        """
        if self._server is None or self.is_worker:
            raise InvalidArgument(f"serve: rank {self._comm.rank} is a worker; its server, if any, runs in a thread")
        with during(f"serve: rank {self._comm.rank}", (PeerFailed,)):  # others are the server's own, and say so
            self._server.run()

    def push(self, gradients: Mapping[str, torch.Tensor | None], wait: bool = True) -> Pending | None:
        """Sends gradients by name; a sparse one (COO, of rows, as of ``nn.Embedding(sparse=True)``) as rows.

        wait=False returns a Pending at once; the gradients must not be changed until it is done. Those that are missing
        or None count as zero beside other workers' gradients, and leave a parameter alone if nobody has one.
        """
        return _wait(self._working("push").start("push", gradients, None), wait)

    def pull(
        self,
        names: Iterable[str] | None = None,
        rows: Mapping[str, torch.Tensor] | None = None,
        wait: bool = True,
    ) -> Pending | None:
        """Overwrites this worker's parameters with the servers'.

        names: all, by default; of these, rows[name] (whole numbers, one dimension) limits it to some rows. wait=False
        returns a Pending at once; its wait() writes the parameters.
        """
        worker = self._working("pull")
        return _wait(worker.start("pull", None, worker.wanted(names, rows)), wait)

    def push_pull(
        self,
        gradients: Mapping[str, torch.Tensor | None],
        rows: Mapping[str, torch.Tensor] | None = None,
        wait: bool = True,
    ) -> Pending | None:
        """push, then pull, in one message each way."""
        worker = self._working("push_pull")
        return _wait(worker.start("push_pull", gradients, worker.wanted(None, rows)), wait)

    def optimizer_state(self) -> dict[torch.Tensor, dict[str, Any]]:
        """The servers' optimizer state of each parameter, as the optimizer over whole parameters would have it."""
        return self._working("optimizer_state").optimizer_state()

    def checkpoint(self) -> tuple[dict[torch.Tensor, dict[str, Any]], dict[str, Any]]:
        """optimizer_state(), and for restore() what else this worker and the servers have."""
        state, saved = self._working("checkpoint").state()
        return state, {"rank": self._comm.rank, **saved}

    def restore(
        self,
        optimizer: torch.optim.Optimizer,
        state: Mapping[torch.Tensor, dict[str, Any]],
        saved: dict[str, Any] | None = None,
    ) -> None:
        """Brings servers and workers to the parameters' values, the state of each and the groups' options.

        All workers call it, between two updates; the lowest rank's hold. saved: from checkpoint(), or None; the
        residuals in it are taken by the rank that saved them, and by no other.
        """
        if saved is not None and not {"rank", "step", "residuals", "exact"} <= saved.keys():
            raise InvalidArgument(
                f"load_state_dict: rank {self._comm.rank} wanted a state of a PSOptimizer, got one whose 'pycoll' has "
                f"{', '.join(saved)}"
            )
        if saved is not None and saved["rank"] != self._comm.rank:
            saved = {**saved, "residuals": {}}
        self._working("restore").load(optimizer, state, saved)

    def stats(self) -> dict[str, Any]:
        """What this rank has seen.

        On workers ``sent_bytes`` and ``received_bytes``, to and from other ranks. On servers ``"server"``: the same,
        and ``shard_bytes``; ``staleness``, how often a worker that pulled was so many pushes ahead of the slowest;
        ``lag``, how often a gradient was computed from parameters that lacked so many of the shard's updates;
        ``queue``, how often a request met so many waiting ones; and ``queue_length``, how many wait now.
        """
        stats: dict[str, Any] = {}
        if self._worker is not None:
            stats = self._worker.stats()
        if self._server is not None:
            stats["server"] = {**self._server.stats(), "shard_bytes": self._shard_bytes}
        return stats

    def close(self) -> None:
        """This worker has finished; waits for what it pushed, and where it serves as well for the other workers.

        Raises what went wrong.
        """
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self._end)
        try:
            if self._worker is not None:
                self._worker.leave()
            if self._serving is not None:
                self._serving.join()
                if self._server is not None and self._server.error is not None:
                    with during(f"close: rank {self._comm.rank}", (PeerFailed,)):
                        raise self._server.error
        except BaseException as error:
            self._fail(error)
            raise
        self._comm.close()

    # Inside.

    def _fail(self, error: BaseException) -> None:
        self._closed = True
        atexit.unregister(self._end)
        if self._server is not None:
            self._server.fail(error)
        tell(self._comm, error)
        if self._worker is not None:
            self._worker.stop()
        if self._serving is not None:
            self._serving.join()
        self._comm.close()

    def _end(self) -> None:
        """At exit: a program that ends well has finished, though it has not said so. Nobody is there to catch."""
        if getattr(sys, "last_value", None) is None:
            try:
                self.close()
            except Exception as error:
                log.warning("ParameterServer, at exit: rank %d: %s: %s", self._comm.rank, type(error).__name__, error)

    def _make_server(
        self, optimizer: torch.optim.Optimizer, parameters: Sequence[torch.Tensor], codec: Codec | None
    ) -> Server:
        mine = [piece for piece in self._pieces if piece.server == self._comm.rank]
        shard = Shard(mine, optimizer, parameters, self._workers, codec)
        self._shard_bytes = sum(4 * value.numel() for value in shard.values.values())
        return Server(self._comm, Desk(self._comm.rank, Gate(self._workers, self.mode), shard), self._workers)

    def _facts(self, optimizer: torch.optim.Optimizer, *others: Any) -> list[tuple[str, str]]:
        what = ("codec", "pull_codec", "piece_bytes")
        facts = [("servers", str(self._servers)), ("workers", str(self._workers)), ("mode", str(self.mode))]
        facts += [(name, repr(value)) for name, value in zip(what, others, strict=True)]
        facts.append(("optimizer", type(optimizer).__name__))
        facts += [(f"parameter {i}", f"'{name}' {describe(p)}") for i, (name, p) in enumerate(self._named)]
        return facts + group_facts(optimizer, {id(parameter): name for name, parameter in self._named})

    def _working(self, call: str) -> Worker:
        if self._worker is None:
            raise InvalidArgument(f"{call}: rank {self._comm.rank} is a server only; it calls serve()")
        if self._closed:
            raise pycoll.Error(f"{call}: this ParameterServer is closed")
        return self._worker


def _serve(server: Server) -> None:
    """In a thread: what is raised is kept by the server, for the worker to raise."""
    try:
        server.run()
    except Exception:
        assert server.error is not None


def _wait(pending: Pending, wait: bool) -> Pending | None:
    if not wait:
        return pending
    pending.wait()
    return None


__all__ = ["ParameterServer"]
