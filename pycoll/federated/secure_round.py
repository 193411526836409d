"""One round of secure aggregation in messages: both sides of what secure.Participant and secure.Collector say."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from ..errors import InvalidArgument
from . import secure
from .messages import NOTHING, Kind, Reply, pack, unpack
from .method import Secure
from .secure import TooFewShares

#: ask(kind, clients, common): the replies of those who answered in time, as they come.
Ask = Callable[[Kind, dict[int, np.ndarray], np.ndarray], Iterable[Reply]]


class SecureClients:
    """A rank's clients in one round."""

    def __init__(self, settings: Secure, round: int) -> None:
        self._settings, self._round = settings, round
        self._participants: dict[int, secure.Participant] = {}
        self._clients = 0  # who advertised keys, at all ranks

    def keys(self, client: int) -> np.ndarray:
        participant = secure.Participant(client, self._round, self._settings.survivors)
        self._participants[client] = participant
        return np.frombuffer(participant.advertise(), np.uint8)

    def shares(self, client: int, directory: np.ndarray) -> np.ndarray:
        keys = _unpacked(directory)
        self._clients = len(keys)
        return pack(self._participants[client].share(keys))

    def masked(self, client: int, sealed: np.ndarray, update: np.ndarray, weight: int) -> np.ndarray:
        """The masked vector: update * weight in fixed point, then the weight itself."""
        participant = self._participants[client]
        participant.receive(_unpacked(sealed))
        fixed = secure.FixedPoint(self._settings.bits, self._settings.range, self._clients)
        most = np.iinfo(fixed.dtype).max // self._clients
        if weight > most:  # the sum of the weights would wrap
            raise InvalidArgument(
                f"federated: client {client} has {weight} samples in round {self._round}, wanted at most {most} each "
                f"of {self._clients} clients in {self._settings.bits} bits"
            )
        vector = np.empty(update.size + 1, fixed.dtype)
        try:
            fixed.encode(update, weight, out=vector[:-1])
        except InvalidArgument as error:
            raise InvalidArgument(f"federated: client {client} in round {self._round}: {error}") from None
        vector[-1] = weight
        return participant.masked(vector).view(np.uint8)

    def reveal(self, client: int, survivors: np.ndarray) -> np.ndarray:
        return pack(self._participants[client].reveal(unpack(survivors).keys()))


def secure_sum(
    ask: Ask, round: int, clients: list[int], settings: Secure, parameters: np.ndarray
) -> tuple[np.ndarray, int, list[int]]:
    """The sum of update * weight as float64[count], the sum of weights, and whose they are. Raises TooFewShares."""
    keys = {reply.client: reply.body for reply in ask(Kind.KEYS, dict.fromkeys(clients, NOTHING), NOTHING)}
    collector = secure.Collector(round, settings.survivors, {c: body.tobytes() for c, body in keys.items()})
    collector.require(len(keys))

    directory = pack(dict(sorted(keys.items())))
    boxes = {reply.client: unpack(reply.body) for reply in ask(Kind.SHARES, dict.fromkeys(keys, NOTHING), directory)}
    collector.require(len(boxes))

    sealed = {c: pack({sender: box[c] for sender, box in boxes.items() if sender != c}) for c in sorted(boxes)}
    fixed = secure.FixedPoint(settings.bits, settings.range, len(keys))
    for reply in ask(Kind.MASKED, sealed, parameters):
        collector.add(reply.client, reply.body.view(fixed.dtype))
    collector.require(len(collector.survivors))

    survivors = dict.fromkeys(sorted(collector.survivors), NOTHING)
    shares = {reply.client: _unpacked(reply.body) for reply in ask(Kind.UNMASK, survivors, pack(survivors))}
    total = collector.total(sorted(boxes), shares)
    return fixed.decode(total[:-1]), int(total[-1]), list(survivors)


def _unpacked(packed: np.ndarray) -> dict[int, bytes]:
    return {key: blob.tobytes() for key, blob in unpack(packed).items()}


__all__ = ["SecureClients", "TooFewShares", "secure_sum"]
