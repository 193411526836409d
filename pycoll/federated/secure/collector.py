"""The server's side of one round of secure aggregation: sums vectors, takes off the masks that did not cancel."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from . import mask, shamir
from .mask import KEY_BYTES, X25519PrivateKey
from .participant import pair_purpose, threshold_of


class Collector:
    """add() each masked vector, then total(). directory: the public keys of all who advertised."""

    def __init__(self, round: int, survivors: float, directory: Mapping[int, bytes]) -> None:
        self.round, self.directory = round, dict(directory)
        self.threshold = threshold_of(survivors, len(directory))
        self.survivors: list[int] = []
        self._sum: np.ndarray | None = None

    def require(self, clients: int) -> None:
        """Raises TooFewShares if so many are not enough: then the round is not worth going on with."""
        if clients < self.threshold:
            raise shamir.TooFewShares(f"secure aggregation: {clients} clients, wanted at least {self.threshold}")

    def add(self, client: int, vector: np.ndarray) -> None:
        """The client's masked vector: uint32[count] or uint64[count]."""
        self.survivors.append(client)
        if self._sum is None:
            self._sum = vector.copy()
        else:
            self._sum += vector

    def total(self, members: list[int], shares: Mapping[int, Mapping[int, bytes]]) -> np.ndarray:
        """The sum of the vectors that were added, without any mask.

        members: those whose shares the others got, so that masks were made for them. shares: by holder, what each
        survivor revealed. Raises TooFewShares.
        """
        self.require(len(self.survivors))
        assert self._sum is not None
        masks = [(self._secret(client, shares), -1) for client in self.survivors]
        for lost in sorted(set(members) - set(self.survivors)):
            key = X25519PrivateKey.from_private_bytes(self._secret(lost, shares))
            for client in self.survivors:
                secret = mask.agree(key, self.directory[client][KEY_BYTES:])
                seed = mask.key_for(secret, pair_purpose(self.round, client, lost))
                masks.append((seed, -1 if client < lost else 1))
        mask.add_masks(self._sum, masks)
        return self._sum

    def _secret(self, client: int, shares: Mapping[int, Mapping[int, bytes]]) -> bytes:
        return shamir.join(
            {holder: given[client] for holder, given in shares.items() if client in given}, self.threshold
        )
