"""A rank that hosts clients: answers the server's requests for each of them, until told to stop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from .. import codec as codecs
from ..arguments import check_whole
from ..errors import InvalidArgument
from .clients import Clients
from .links import HostLink
from .messages import DROPPED, REFUSED, Kind, Reply, Request
from .method import Method
from .privacy import Local

if TYPE_CHECKING:
    from .secure_round import SecureClients


class Host:
    """The clients' side of a federation, on one rank."""

    def __init__(self, clients: Clients, method: Method, dtype: np.dtype) -> None:
        self._clients, self._method, self._dtype = clients, method, dtype
        self._residuals: dict[int, np.ndarray] = {}
        self._secure: SecureClients  # of the round under way

    def serve(self, link: HostLink) -> np.ndarray:
        """Answers until the server stops; the final parameters."""
        while True:
            request = link.receive()
            if request.kind == Kind.STOP:
                link.send(Reply(Kind.STOP, request.round, DROPPED))
                link.leave()
                return request.common.view(self._dtype)
            if link.overtaken():
                continue
            for reply in self.answer(request):
                link.send(reply)
                if link.overtaken():
                    break

    def answer(self, request: Request) -> Iterator[Reply]:
        """A reply for each client of the request."""
        if request.kind == Kind.KEYS:
            from .secure_round import SecureClients

            assert self._method.secure is not None
            self._secure = SecureClients(self._method.secure, request.round)
        for client, blob in request.clients.items():
            reply = Reply(request.kind, request.round, client)
            trains = request.kind in (Kind.TRAIN, Kind.MASKED)
            if not (trains and self._method.dropout is not None and self._method.dropout(request.round, client)):
                self._fill(reply, request, blob)
            yield reply

    def _fill(self, reply: Reply, request: Request, blob: np.ndarray) -> None:
        client, reply.samples = reply.client, 0
        if request.kind in (Kind.TRAIN, Kind.MASKED):
            self._fill_trained(reply, request, blob)
        elif request.kind == Kind.KEYS:
            reply.body = self._secure.keys(client)
        elif request.kind == Kind.SHARES:
            reply.body = self._secure.shares(client, request.common)
        else:
            reply.body = self._secure.reveal(client, request.common)

    def _fill_trained(self, reply: Reply, request: Request, blob: np.ndarray) -> None:
        client = reply.client
        update = self._update(request, client)
        if update is None:
            reply.samples = REFUSED
            return
        weight = 1 if self._method.privacy else self._clients.samples(client)
        check_whole(f"federated: client {client}", "the number of samples", weight, 0)
        if request.kind == Kind.TRAIN:
            reply.samples, reply.body = weight, self._encoded(request.round, client, update)
        else:
            reply.body = self._secure.masked(client, blob, update, weight)

    def _update(self, request: Request, client: int) -> np.ndarray | None:
        """What the client's training changed, clipped and made noisy as the method says; None if it is not finite."""
        parameters = request.common.view(self._dtype)
        # A copy each: what a client writes into it is neither the next one's nor what its update is measured from.
        trained = np.asarray(self._clients.train(client, parameters.copy(), request.round), self._dtype)
        if trained.shape != parameters.shape:
            raise InvalidArgument(
                f"federated: client {client} trained parameters {list(trained.shape)}, wanted {list(parameters.shape)}"
            )
        with np.errstate(over="ignore", invalid="ignore"):
            update = trained - parameters
        privacy = self._method.privacy
        if not np.isfinite(update).all():
            if not isinstance(privacy, Local):
                return None
            update = np.zeros_like(update)  # to refuse it would tell of the client's data what noise is to hide
        if privacy is not None:
            update = privacy.clipped(update)
        if isinstance(privacy, Local):
            update = privacy.noisy(update, request.round, client)
        return update

    def _encoded(self, round: int, client: int, update: np.ndarray) -> np.ndarray:
        codec = self._method.codec
        if codec is None:
            return update.view(np.uint8)
        update = np.ascontiguousarray(update, np.float32)
        residual = self._residuals.setdefault(client, np.zeros_like(update)) if self._method.feedback else None
        wire = codecs.encode(update, codec.at(round), residual=residual, step=round, stream=client)
        if residual is not None and not np.isfinite(residual).all():  # of an update beyond the codec's numbers
            del self._residuals[client]
        return wire
