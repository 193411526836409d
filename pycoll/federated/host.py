"""A rank that hosts clients: answers the server's requests for each of them, until told to stop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from .. import codec as codecs
from ..errors import InvalidArgument
from .clients import Clients
from .links import HostLink
from .messages import DROPPED, Kind, Reply, Request
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
        client, weight = reply.client, 0
        if request.kind in (Kind.TRAIN, Kind.MASKED):
            update = self._update(request, client)
            weight = 1 if self._method.privacy else self._clients.samples(client)
        if request.kind == Kind.TRAIN:
            reply.samples, reply.body = weight, self._encoded(request.round, client, update)
        elif request.kind == Kind.MASKED:
            reply.samples, reply.body = 0, self._secure.masked(client, blob, update, weight)
        elif request.kind == Kind.KEYS:
            reply.samples, reply.body = 0, self._secure.keys(client)
        elif request.kind == Kind.SHARES:
            reply.samples, reply.body = 0, self._secure.shares(client, request.common)
        else:
            reply.samples, reply.body = 0, self._secure.reveal(client, request.common)

    def _update(self, request: Request, client: int) -> np.ndarray:
        """What the client's training changed, clipped and made noisy as the method says."""
        parameters = request.common.view(self._dtype)
        trained = np.asarray(self._clients.train(client, parameters, request.round), self._dtype)
        if trained.shape != parameters.shape:
            raise InvalidArgument(
                f"federated: client {client} trained parameters {list(trained.shape)}, wanted {list(parameters.shape)}"
            )
        update = trained - parameters
        privacy = self._method.privacy
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
        return codecs.encode(update, codec.at(round), residual=residual, step=round, stream=client)
