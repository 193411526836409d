"""A worker of a parameter server: gradients become requests, and replies the parameters' numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any

import numpy as np
import torch

from ..buckets import Named
from ..codec import Codec
from ..during import during
from ..errors import InvalidArgument, Timeout
from .arguments import check_gradient, limits_of
from .client import Client
from .pieces import Entry, Loaded, Piece, Reply, Request, Residuals, as_rows, flat
from .state import cut_state, join_state, options_of
from .view import View

Rows = list[tuple[int, "np.ndarray | None"]]  # pieces, and which of their rows; None: all


class Pending:
    """A push or pull under way."""

    def __init__(
        self, what: str, future: futures.Future[dict[int, Reply]], finish: Callable[[dict[int, Reply]], None] | None
    ) -> None:
        self._what, self._future, self._finish = what, future, finish

    def done(self) -> bool:
        """True if wait() would not wait."""
        return self._future.done()

    def wait(self, timeout: float | None = None) -> None:
        """Waits; what was pulled is then in the parameters.

        timeout: seconds; after them Timeout is raised, and the operation goes on. None: its own deadline holds.
        """
        if not futures.wait([self._future], timeout).done:
            raise Timeout(f"wait: the operation was not done within {timeout} s; it goes on")
        with during(self._what):
            replies = self._future.result()
        if self._finish is not None:
            finish, self._finish = self._finish, None
            finish(replies)


class Worker:
    """Checks and starts what the user calls; encoding and decoding are jobs of the client's thread."""

    def __init__(
        self,
        client: Client,
        named: Sequence[Named],
        pieces: Sequence[Piece],
        codec: Codec | None,
        pull_codec: Codec | None,
    ) -> None:
        self._client, self._named, self._pieces = client, named, pieces
        self._by_name = {name: i for i, (name, _) in enumerate(named)}
        self._of = [[piece for piece in pieces if piece.parameter == i] for i in range(len(named))]
        self._residuals = Residuals(codec, stream=client.rank)
        self._view = View(pieces, [parameter for _, parameter in named], pull_codec)
        self._optimizer: torch.optim.Optimizer | None = None
        self._options = ""
        self._pushes = 0

    def follow(self, optimizer: torch.optim.Optimizer) -> None:
        """From now on servers learn of changes in the options of this optimizer's groups."""
        self._optimizer = optimizer
        self._changed_options()

    def start(self, call: str, gradients: Mapping[str, torch.Tensor | None] | None, wanted: Rows | None) -> Pending:
        """A push (of `gradients`), a pull (of `wanted`), or both. Raises InvalidArgument."""
        what = self._what(call)
        pushed = None if gradients is None else self._checked(gradients)
        options = None if gradients is None else self._changed_options()
        versions = dict(self._view.versions)

        def job() -> dict[int, Reply]:
            requests = {
                server: Request(
                    options,
                    push=None if pushed is None else [],
                    tables=[i for i, gradient in pushed or [] if gradient.is_sparse],
                    pull=None if wanted is None else [],
                    base=versions.get(server, 0),
                )
                for server in self._client.servers
            }
            for server, entry in self._entries(pushed or []):
                requests[server].push.append(entry)  # type: ignore[union-attr]
            for index, rows in wanted or []:
                requests[self._pieces[index].server].pull.append((index, rows))  # type: ignore[union-attr]
            replies = self._client.ask(requests)
            for reply in replies.values():
                self._view.take(reply)
            return replies

        self._pushes += pushed is not None
        return Pending(what, self._client.submit(job), None if wanted is None else self._view.show)

    def wanted(self, names: Iterable[str] | None, rows: Mapping[str, torch.Tensor] | None) -> Rows:
        """What a pull is about. Raises InvalidArgument."""
        chosen = list(self._by_name) if names is None else list(names)
        wanted: Rows = []
        for name in chosen:
            if name not in self._by_name:
                raise InvalidArgument(f"pull: there is no parameter '{name}'")
        counts = {name: as_rows(self._named[self._by_name[name]][1]).shape[0] for name in chosen}
        limits = limits_of(rows or {}, counts, self._client.rank)
        for name in chosen:
            i = self._by_name[name]
            if name not in limits:
                wanted += [(piece.index, None) for piece in self._of[i]]
                continue
            limit = limits[name]
            for piece in self._of[i]:
                own = limit[(limit >= piece.begin) & (limit < piece.end)] - piece.begin
                if own.size:
                    wanted.append((piece.index, own))
        return wanted

    def optimizer_state(self) -> dict[torch.Tensor, dict[str, Any]]:
        """The servers' state of each parameter."""
        requests = {server: Request(state=True) for server in self._client.servers}
        return self._joined(self._ask("optimizer_state", requests))

    def state(self) -> tuple[dict[torch.Tensor, dict[str, Any]], dict[str, Any]]:
        """The servers' state of each parameter; and for load(), what else a run is made of.

        `step` and `residuals`: of error feedback. `exact`: the servers' float32 numbers of parameters that workers have
        rounded or encoded.
        """
        requests = {server: Request(state=True) for server in self._client.servers}
        for piece in self._pieces:
            if self._view.is_held(piece) or self._named[piece.parameter][1].dtype != torch.float32:
                requests[piece.server].exact.append(piece.index)
        replies = self._ask("state_dict", requests)
        exact: dict[str, torch.Tensor] = {}
        for entry in (entry for reply in replies.values() for entry in reply.entries):
            piece = self._pieces[entry.piece]
            name, parameter = self._named[piece.parameter]
            whole = exact.setdefault(name, torch.empty(parameter.shape, dtype=torch.float32))
            part = piece.of(whole)
            part.copy_(torch.from_numpy(entry.wire).view(part.shape))
        feedback = self._client.submit(lambda: self._residuals.state(self._pieces)).result()
        residuals = {self._named[i][0]: torch.from_numpy(array) for i, array in feedback["residuals"].items()}
        return self._joined(replies), {"step": feedback["step"], "residuals": residuals, "exact": exact}

    def load(
        self,
        optimizer: torch.optim.Optimizer,
        states: Mapping[torch.Tensor, dict[str, Any]],
        saved: Mapping[str, Any] | None,
    ) -> None:
        """Brings the servers to the parameters' values, their states and options, in step with all other workers.

        saved: what state() gave besides, or None.
        """
        saved = {"step": -1, "residuals": {}, "exact": {}} if saved is None else saved
        for what in ("residuals", "exact"):
            for name, array in saved[what].items():
                there = tuple(self._named[self._by_name[name]][1].shape) if name in self._by_name else None
                if there is None or array.numel() != math.prod(there):
                    wanted = "no such parameter" if there is None else f"the shape {list(there)}"
                    raise InvalidArgument(
                        f"load_state_dict: rank {self._client.rank} got {what} of '{name}', {list(array.shape)}, "
                        f"wanted {wanted}"
                    )
        residuals = {self._by_name[name]: array.numpy() for name, array in saved["residuals"].items()}
        options = [options_of(group) for group in optimizer.param_groups]
        requests = {server: Request(options, load=[]) for server in self._client.servers}
        for piece in self._pieces:
            name, parameter = self._named[piece.parameter]
            numbers = flat(piece.of(saved["exact"].get(name, parameter)))
            state = cut_state(states.get(parameter, {}), piece, parameter)
            requests[piece.server].load.append(Loaded(piece.index, numbers, state))  # type: ignore[union-attr]

        def job() -> dict[int, Reply]:
            self._residuals.load({"step": saved["step"], "residuals": residuals}, self._pieces)
            replies = self._client.ask(requests)
            for reply in replies.values():
                self._view.exact(reply)
            return replies

        with during(self._what("load_state_dict")):
            self._view.show(self._client.submit(job).result())

    def _ask(self, call: str, requests: dict[int, Request]) -> dict[int, Reply]:
        with during(self._what(call)):
            return self._client.submit(lambda: self._client.ask(requests)).result()

    def _what(self, call: str) -> str:
        """Opens a failure's sentence."""
        return f"{call}: rank {self._client.rank}, after {self._pushes} pushes"

    def _joined(self, replies: dict[int, Reply]) -> dict[torch.Tensor, dict[str, Any]]:
        parts = {i: state for reply in replies.values() for i, state in (reply.state or {}).items()}
        states = {}
        for (_, parameter), pieces in zip(self._named, self._of, strict=True):
            found = [(piece, parts[piece.index]) for piece in pieces if piece.index in parts]
            if found:
                states[parameter] = join_state(parameter, found)
        return states

    def stats(self) -> dict[str, Any]:
        """Bytes to and from other ranks."""
        return {"sent_bytes": self._client.sent_bytes, "received_bytes": self._client.received_bytes}

    def leave(self) -> None:
        """Tells the servers that this worker has finished, behind all that was started."""
        requests = {server: Request(leave=True) for server in self._client.servers}
        left = self._client.submit(lambda: self._client.ask(requests))
        self.stop()
        with during(self._what("close")):
            left.result()

    def stop(self) -> None:
        """Ends the client's thread."""
        self._client.close()

    def _entries(self, gradients: list[tuple[int, torch.Tensor]]) -> Iterator[tuple[int, Entry]]:
        """Each piece's entry, with its server."""
        self._residuals.step()
        for i, gradient in gradients:
            if not gradient.is_sparse:
                for piece in self._of[i]:
                    yield piece.server, self._residuals.entry(piece, flat(piece.of(gradient)), None)
                continue
            gradient = gradient.coalesce()
            rows, values = gradient.indices()[0].numpy(), gradient.values()
            for piece in self._of[i]:
                first, last = np.searchsorted(rows, [piece.begin, piece.end])
                if first < last:
                    own = rows[first:last] - piece.begin
                    yield piece.server, self._residuals.entry(piece, flat(values[first:last]), own)

    def _checked(self, gradients: Mapping[str, torch.Tensor | None]) -> list[tuple[int, torch.Tensor]]:
        checked = []
        for name, gradient in gradients.items():
            if name not in self._by_name:
                raise InvalidArgument(f"push: there is no parameter '{name}'")
            if gradient is None:
                continue
            check_gradient(name, gradient, self._named[self._by_name[name]][1].shape, self._client.rank)
            checked.append((self._by_name[name], gradient.detach()))
        return checked

    def _changed_options(self) -> list[dict[str, Any]] | None:
        """The options of the groups if a scheduler, say, has changed them since the last call."""
        if self._optimizer is None:
            return None
        now = [options_of(group) for group in self._optimizer.param_groups]
        before, self._options = self._options, repr(now)
        return now if before != self._options else None


__all__ = ["Pending", "Worker"]
