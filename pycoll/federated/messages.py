"""What travels between the server and the ranks that host clients: a header of eight bytes a field, and bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np

from ..errors import TransportError

HEADER = 5  # int64: kind, round, client, samples, bytes of the body
TAG_REQUEST, TAG_REQUEST_BODY, TAG_REPLY, TAG_REPLY_BODY, TAG_FAREWELL = range(5)
COMMON = -1  # in a request's body, the key of what is for all its clients
NOTHING = np.empty(0, np.uint8)
# In a reply's samples: the client has left the round; its update had elements that are not finite.
DROPPED, REFUSED = -1, -2


class Kind(IntEnum):
    STOP = 0  # the final parameters; answered once a rank
    TRAIN = 1  # the parameters; an update
    KEYS = 2  # nothing; public keys
    SHARES = 3  # everybody's public keys; sealed shares by receiver
    MASKED = 4  # the parameters, and sealed shares by sender; a masked vector
    UNMASK = 5  # who sent one; shares by owner


@dataclass
class Request:
    kind: Kind
    round: int
    clients: dict[int, np.ndarray]
    common: np.ndarray


@dataclass
class Reply:
    kind: Kind
    round: int
    client: int
    samples: int = DROPPED
    body: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint8))

    @property
    def header(self) -> np.ndarray:
        return np.array([self.kind, self.round, self.client, self.samples, self.body.size], np.int64)


def pack(blobs: Mapping[int, bytes | np.ndarray]) -> np.ndarray:
    """Bytes by number as uint8: how many, number and length of each (int64), then the bytes."""
    views = {key: _view(blob) for key, blob in blobs.items()}
    table = [n for key, view in views.items() for n in (key, view.size)]
    return np.concatenate([np.array([len(views), *table], np.int64).view(np.uint8), *views.values()])


def unpack(packed: np.ndarray) -> dict[int, np.ndarray]:
    """The inverse of pack(), without a copy. Raises TransportError."""
    return dict(_blobs(np.asarray(packed, np.uint8)))


def _blobs(packed: Any) -> Iterator[tuple[int, np.ndarray]]:
    try:
        (count,) = struct.unpack_from("<q", packed)
        table = struct.unpack_from(f"<{2 * count}q", packed, 8) if 0 <= count <= packed.size else None
    except struct.error:
        table = None
    if table is None or min(table[1::2], default=0) < 0 or 8 + 16 * count + sum(table[1::2]) != packed.size:
        raise TransportError(f"federated: a message of {packed.size} bytes is not what a rank would send")
    begin = 8 + 16 * count
    for key, bytes in zip(table[::2], table[1::2], strict=True):
        yield key, packed[begin : begin + bytes]
        begin += bytes


def _view(blob: bytes | np.ndarray) -> np.ndarray:
    return np.frombuffer(blob, np.uint8) if isinstance(blob, bytes) else blob.reshape(-1).view(np.uint8)
