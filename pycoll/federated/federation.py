"""Federated training over ranks: one of them is the server, the others host the clients."""

from __future__ import annotations

import copy
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import codec as codecs
from ..agree import check_agreement
from ..arguments import check_whole
from ..comm import Communicator
from ..errors import Error, InvalidArgument
from .aggregate import TooFewUpdates
from .clients import Clients
from .host import Host
from .links import LOOK, HostLink, Link, LocalLink, RemoteLink
from .messages import NOTHING, REFUSED, Kind, Reply, Request
from .method import Method
from .privacy import Central


@dataclass
class Report:
    """What a round was like, at the server."""

    round: int
    asked: list[int]  # the clients that were sampled
    reported: list[int] = field(default_factory=list)  # those whose updates count
    refused: list[int] = field(default_factory=list)  # those whose updates were not finite, and do not count
    late: int = 0  # answers to earlier requests that came meanwhile, and were not used
    void: str | None = None  # why the round changed nothing
    norm: float = 0.0  # of the aggregated update
    sent: int = 0  # bytes
    received: int = 0
    seconds: float = 0.0


class Federation:
    """A server and its clients over the ranks of `comm`.

    ::

        clients = federated.TorchClients(model, cross_entropy, data)
        federation = federated.Federation(comm, clients, federated.Method(sample=federated.Uniform(20)))
        reports = federation.run(rounds=50, on_round=lambda report: print(report.round, report.norm))

    All ranks make it with the same `method` and number of clients; `clients` gives the server the first parameters.
    Client c is hosted by rank c % (size - 1) of those that are not the server; a single rank is both. Server arithmetic
    is float64 and in the order of the clients' numbers: the result does not depend on the number of ranks.

    Raises MismatchError where ranks disagree. The death of a rank ends run() with PeerFailed, as everywhere in pycoll;
    `state_dict` is what to go on from.
    """

    def __init__(self, comm: Communicator, clients: Clients, method: Method | None = None, server: int = 0) -> None:
        if not 0 <= server < comm.size:
            raise InvalidArgument(f"Federation: rank {comm.rank} got server {server}, wanted a rank below {comm.size}")
        if len(clients) < 1:
            raise InvalidArgument(f"Federation: rank {comm.rank} got no clients")
        self.method = method or Method()
        self.parameters = clients.parameters()  # flat; after run(), on all ranks, those of the last round
        if self.parameters.ndim != 1 or self.parameters.dtype not in (np.float32, np.float64):
            raise InvalidArgument(
                f"Federation: rank {comm.rank} got parameters {self.parameters.dtype}{list(self.parameters.shape)}, "
                "wanted a flat array of float32 or float64"
            )
        layout = f"{self.parameters.dtype}[{self.parameters.size}] of {len(clients)} clients"
        check_agreement(comm, "Federation", [*self.method.facts(), ("parameters", layout), ("server", str(server))])
        if self.method.secure:
            self.method.secure.check(self.method.sample.most(len(clients)))
        self.round = 0  # the next one
        self.is_server = comm.rank == server
        self._comm, self._server, self._clients = comm, server, len(clients)
        self._asked: Counter[int] = Counter()  # rounds by client
        self._seed = self._choice_seed()
        self._host = Host(clients, self.method, self.parameters.dtype)
        self._optimizer = copy.deepcopy(self.method.optimizer)  # its state is this federation's
        self._exact = self.parameters.astype(np.float64)

    def run(self, rounds: int, on_round: Callable[[Report], Any] | None = None) -> list[Report]:
        """Trains for `rounds` more rounds. Collective. The server's reports; other ranks get none.

        on_round: called by the server after each round, when `parameters` are its own. What it raises, or a client's
        training, ends the run on all ranks.
        """
        check_whole("Federation.run", "rounds", rounds, 0)
        try:
            if self.is_server:
                return self._serve(rounds, on_round)
            self.parameters = self._host.serve(HostLink(self._comm, self._server)).copy()
            self.round += rounds
            return []
        except BaseException as error:
            if self._comm.size > 1:
                self._comm._abort(f"ended with {type(error).__name__}: {error}"[:400])
            raise

    def epsilon(self, delta: float) -> float:
        """What was spent of privacy up to now, at the server: of (epsilon, delta), epsilon.

        Under Central of every client; under Local of the one that was asked most often.
        """
        privacy = self.method.privacy
        if privacy is None:
            raise InvalidArgument("epsilon: the method has no privacy")
        if not self.is_server:
            raise InvalidArgument(
                f"epsilon: rank {self._comm.rank} keeps no account, wanted a call on the server, rank {self._server}"
            )
        rounds = self.round if isinstance(privacy, Central) else max(self._asked.values(), default=0)
        return privacy.epsilon(delta, self.method.sample.rate(self._clients), rounds)

    def state_dict(self) -> dict[str, Any]:
        """The server's state between rounds, for load_state_dict(). What clients keep is not in it (feedback)."""
        return {
            "round": self.round,
            "parameters": self._exact.copy(),
            "optimizer": {name: array.copy() for name, array in self._optimizer.state.items()},
            "asked": dict(self._asked),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where state_dict() was taken. By the server; other ranks get what they need with the first round."""
        parameters = np.array(state["parameters"], np.float64)
        if parameters.shape != self._exact.shape:
            raise InvalidArgument(
                f"Federation: the state has parameters {list(parameters.shape)}, the clients {list(self._exact.shape)}"
            )
        self.round, self._exact = int(state["round"]), parameters
        self.parameters = self._exact.astype(self.parameters.dtype)
        self._optimizer.state = {name: np.array(array) for name, array in state["optimizer"].items()}
        self._asked = Counter(state["asked"])

    # ---- The server

    def _serve(self, rounds: int, on_round: Callable[[Report], Any] | None) -> list[Report]:
        hosts = [rank for rank in range(self._comm.size) if rank != self._server]
        link: Link = RemoteLink(self._comm, hosts) if hosts else LocalLink(self._host.answer)
        reports = []
        for _ in range(rounds):
            reports.append(self._one_round(link))
            if on_round is not None:
                on_round(reports[-1])
        link.stop(self.parameters)
        return reports

    def _choice_seed(self) -> int:
        if self.method.seed is not None:
            return self.method.seed
        # Accounts of privacy suppose that nobody knows who was asked.
        return secrets.randbits(128) if self.method.privacy and self.is_server else 0

    def _one_round(self, link: Link) -> Report:
        begin, sent, received = time.monotonic(), link.sent, link.received
        chosen = self.method.sample.draw(np.random.default_rng([self._seed, self.round]), self._clients)
        report = Report(self.round, chosen)
        self._asked.update(chosen)
        update = self._update(link, report)
        report.refused.sort()
        if update is not None:
            report.norm = float(np.linalg.norm(update))
            self._exact = self._optimizer.step(self._exact, update)
            self.parameters = self._exact.astype(self.parameters.dtype)
        self.round += 1
        report.sent, report.received = link.sent - sent, link.received - received
        report.seconds = time.monotonic() - begin
        return report

    def _update(self, link: Link, report: Report) -> np.ndarray | None:
        """The aggregated update, float64[count]; None if the round is void."""
        mean, weight = self._secure(link, report) if self.method.secure else self._plain(link, report)
        central = self.method.privacy if isinstance(self.method.privacy, Central) else None
        if central is not None and report.void is None:
            # A fixed divisor: the number of those who reported is not part of what the noise hides.
            expected = self.method.sample.rate(self._clients) * self._clients
            return central.noisy(mean * weight, report.round) / expected
        if not weight and report.void is None:
            refused = f", {len(report.refused)} had updates that are not finite" if report.refused else ""
            report.void = f"none of {len(report.asked)} clients reported{refused}"
        if report.void is None and not np.isfinite(mean).all():
            report.void = f"the aggregated update of {len(report.reported)} clients is not finite"
        return None if report.void else mean

    def _plain(self, link: Link, report: Report) -> tuple[np.ndarray, float]:
        asked, updates, samples = dict.fromkeys(report.asked, NOTHING), {}, {}
        for reply in self._ask(link, report, Kind.TRAIN, asked, self.parameters):
            update = self._decoded(reply)
            if np.isfinite(update).all():
                updates[reply.client], samples[reply.client] = update, reply.samples
            else:  # what a codec makes of a large one
                report.refused.append(reply.client)
        report.reported = sorted(updates)
        weights = np.array([samples[client] for client in report.reported], np.float64)
        if not weights.sum():
            return np.zeros(self.parameters.size), 0.0
        try:
            mean = self.method.aggregate(np.stack([updates[client] for client in report.reported]), weights)
        except TooFewUpdates as error:
            report.void = str(error)
            return np.zeros(self.parameters.size), 0.0
        return mean, weights.sum()

    def _secure(self, link: Link, report: Report) -> tuple[np.ndarray, float]:
        from .secure_round import TooFewShares, secure_sum

        assert self.method.secure is not None

        def ask(kind: Kind, clients: dict[int, np.ndarray], common: np.ndarray) -> Iterator[Reply]:
            return self._ask(link, report, kind, clients, common)

        try:
            total, weight, report.reported = secure_sum(
                ask, report.round, report.asked, self.method.secure, self.parameters
            )
        except TooFewShares as error:
            report.void = str(error)
            return np.zeros(self.parameters.size), 0.0
        return total / max(weight, 1), weight

    def _decoded(self, reply: Reply) -> np.ndarray:
        update = codecs.decode(reply.body) if self.method.codec else reply.body.view(self.parameters.dtype)
        if update.size != self.parameters.size:
            raise Error(f"federated: client {reply.client} sent {update.size} elements, wanted {self.parameters.size}")
        return update

    def _ask(
        self, link: Link, report: Report, kind: Kind, clients: dict[int, np.ndarray], common: np.ndarray
    ) -> Iterator[Reply]:
        """The replies of those who answer before the deadline, as they come."""
        common = common.view(np.uint8)
        until = None if self.method.deadline is None else time.monotonic() + self.method.deadline
        request = Request(kind, report.round, clients, common)
        waiting = link.post(request)
        while clients and not waiting:  # all hosts are behind: the first that takes what it was sent gets this
            now = time.monotonic()
            if until is not None and now > until:
                return
            report.late += link.next(now + LOOK) is not None
            waiting = link.post(request)
        while waiting:
            reply = link.next(until)
            if reply is None:
                return
            if reply.kind != kind or reply.round != report.round:
                report.late += 1
                continue
            waiting.discard(reply.client)
            if reply.samples == REFUSED:
                report.refused.append(reply.client)
            elif reply.samples >= 0:
                yield reply
