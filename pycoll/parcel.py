"""Python objects between two ranks: pickled, but for the memory of the arrays in them, which travels as it is."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .comm import Communicator

_ROOM = 6  # sizes of arrays that the first message has room for


class Parcel:
    """An object ready to be sent. Raises what pickle raises for it."""

    def __init__(self, content: Any) -> None:
        buffers: list[pickle.PickleBuffer] = []
        self._pickle = pickle.dumps(content, protocol=5, buffer_callback=buffers.append)
        self._arrays = [np.frombuffer(buffer.raw(), np.uint8) for buffer in buffers]
        self.nbytes = len(self._pickle) + sum(array.nbytes for array in self._arrays)

    def send(self, comm: Communicator, to: int) -> None:
        """Messages: sizes; more sizes, if there are more arrays than the first has room for; pickle; each array."""
        sizes = np.zeros(2 + _ROOM, np.int64)
        lengths = np.array([array.nbytes for array in self._arrays], np.int64)
        sizes[:2] = len(self._pickle), len(lengths)
        if len(lengths) <= _ROOM:
            sizes[2 : 2 + len(lengths)] = lengths
        comm.send(sizes, to)
        if len(lengths) > _ROOM:
            comm.send(lengths, to)
        for array in (np.frombuffer(self._pickle, np.uint8), *self._arrays):
            if array.nbytes:
                comm.send(array, to)


def receive(comm: Communicator, source: int) -> Any:
    """The object that rank `source` sends next."""
    sizes = np.empty(2 + _ROOM, np.int64)
    comm.recv(sizes, source)
    lengths = sizes[2 : 2 + int(sizes[1])]
    if sizes[1] > _ROOM:
        lengths = np.empty(int(sizes[1]), np.int64)
        comm.recv(lengths, source)
    pickled, *arrays = (np.empty(int(length), np.uint8) for length in (sizes[0], *lengths))
    for array in (pickled, *arrays):
        if array.nbytes:
            comm.recv(array, source)
    return pickle.loads(pickled.data, buffers=arrays)
