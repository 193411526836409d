"""A client's side of one round of secure aggregation. Everything in it is new in every round."""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Collection, Mapping

import numpy as np

from ...errors import Error, InvalidArgument
from . import mask, shamir
from .mask import KEY_BYTES, X25519PrivateKey

LEAST = 2  # clients in a sum: that of one would be its vector


def threshold_of(survivors: float, clients: int) -> int:
    """How many clients must stay to the end: the part `survivors` of them, rounded up."""
    return max(LEAST, math.ceil(survivors * clients - 1e-9))


def pair_purpose(round: int, one: int, other: int) -> bytes:
    """Of the seed that two clients share; the same from both sides."""
    return b"mask" + struct.pack("<3q", round, min(one, other), max(one, other))


class Participant:
    """One client in one round: advertise(), share(), receive(), masked(), reveal(), in this order, each once."""

    def __init__(self, client: int, round: int, survivors: float) -> None:
        self.client, self.round, self._survivors = client, round, survivors
        self._sealing, self._masking = X25519PrivateKey.generate(), X25519PrivateKey.generate()
        self._self_seed = os.urandom(KEY_BYTES)
        self._directory: dict[int, bytes] = {}
        self._peers: list[int] = []
        self._shares: dict[int, bytes] = {}
        self._secrets: dict[int, bytes] = {}  # agreed with each peer, of which the keys that seal shares are made
        self._done: set[str] = set()

    def advertise(self) -> bytes:
        """Two public keys: for sealing shares, and for agreeing on masks."""
        return self._sealing.public_key().public_bytes_raw() + self._masking.public_key().public_bytes_raw()

    def share(self, directory: Mapping[int, bytes]) -> dict[int, bytes]:
        """Sealed shares of this client's two secrets, for every other client of the directory of public keys."""
        if directory.get(self.client) != self.advertise():
            raise InvalidArgument(f"secure aggregation: the directory has another key for client {self.client}")
        if len(set(directory.values())) < len(directory):
            raise InvalidArgument("secure aggregation: two clients of the directory have the same keys")
        self._directory = dict(directory)
        self.threshold = threshold_of(self._survivors, len(directory))
        if self.threshold > len(directory):
            raise shamir.TooFewShares(f"secure aggregation: {len(directory)} clients, wanted at least {self.threshold}")
        self._once("share")
        keys = shamir.split(self._masking.private_bytes_raw(), self.threshold, directory)
        seeds = shamir.split(self._self_seed, self.threshold, directory)
        self._shares[self.client] = keys[self.client] + seeds[self.client]
        return {
            peer: mask.seal(self._key(self.client, peer), keys[peer] + seeds[peer], self._about(self.client, peer))
            for peer in directory
            if peer != self.client
        }

    def receive(self, sealed: Mapping[int, bytes]) -> None:
        """The others' shares, by sender; who sent none takes no part in the sum."""
        if len(sealed) + 1 < self.threshold:
            raise shamir.TooFewShares(
                f"secure aggregation: {len(sealed) + 1} clients, wanted at least {self.threshold}"
            )
        for sender, box in sealed.items():
            self._shares[sender] = mask.open_sealed(
                self._key(sender, self.client), box, self._about(sender, self.client)
            )
        self._peers = sorted(sealed)

    def masked(self, vector: np.ndarray) -> np.ndarray:
        """The vector (uint32 or uint64) plus this client's masks, which cancel in the sum over all. In place."""
        self._once("mask")
        masks = [(self._self_seed, 1)]
        for peer in self._peers:
            secret = mask.agree(self._masking, self._directory[peer][KEY_BYTES:])
            seed = mask.key_for(secret, pair_purpose(self.round, self.client, peer))
            masks.append((seed, 1 if self.client < peer else -1))
        mask.add_masks(vector, masks)
        return vector

    def reveal(self, survivors: Collection[int]) -> dict[int, bytes]:
        """A share for each client: of the self-mask of those who sent their vector, of the key of those who did not.

        Of no client both, and only once: both together would uncover its vector.
        """
        if len(set(survivors)) < self.threshold or self.client not in survivors:
            raise shamir.TooFewShares(
                f"secure aggregation: {len(set(survivors))} clients are left, wanted at least {self.threshold}"
            )
        self._once("reveal")
        size = shamir.SHARE_BYTES
        return {peer: s[size:] if peer in survivors else s[:size] for peer, s in self._shares.items()}

    def _once(self, step: str) -> None:
        # Two vectors under the same masks would show their difference, two lists of survivors both secrets of a client.
        if step in self._done:
            raise Error(f"secure aggregation: client {self.client} was asked twice to {step} in round {self.round}")
        self._done.add(step)

    def _key(self, sender: int, receiver: int) -> bytes:
        peer = receiver if sender == self.client else sender
        if peer not in self._secrets:  # one agreement for both directions, which differ in purpose
            self._secrets[peer] = mask.agree(self._sealing, self._directory[peer][:KEY_BYTES])
        return mask.key_for(self._secrets[peer], self._about(sender, receiver))

    def _about(self, sender: int, receiver: int) -> bytes:
        return b"share" + struct.pack("<3q", self.round, sender, receiver)
