"""Which server holds what: consistent hashing with bounded loads. Every rank computes the same, without a message."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Mapping, Sequence

_POINTS = 64  # of each server on the ring


class HashRing:
    """Servers at pseudo-random points of a ring; a key belongs to the next server clockwise that has room.

    Room is `slack` times an even share of the bytes (Mirrokni, Thorup and Zadimoghaddam, arXiv 1608.01350), so that
    loads are balanced, and few keys move when a server comes or goes.
    """

    def __init__(self, servers: Sequence[int], slack: float = 1.1) -> None:
        self._slack = slack
        self._servers = list(servers)
        self._ring = sorted((_hash(f"server {server} point {i}"), server) for server in servers for i in range(_POINTS))

    def place(self, bytes_of: Mapping[str, int]) -> dict[str, int]:
        """The server of each key. Large keys choose first; where nobody has room, the least loaded server takes it."""
        room = self._slack * sum(bytes_of.values()) / len(self._servers)
        load = dict.fromkeys(self._servers, 0)
        placed = {}
        for key in sorted(bytes_of, key=lambda key: (-bytes_of[key], _hash(key))):
            size = bytes_of[key]
            server = next((s for s in self._clockwise(key) if load[s] + size <= room), min(load, key=load.__getitem__))
            placed[key] = server
            load[server] += size
        return placed

    def _clockwise(self, key: str) -> list[int]:
        start = bisect_left(self._ring, (_hash(key), -1))
        return list(dict.fromkeys(server for _, server in self._ring[start:] + self._ring[:start]))


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
