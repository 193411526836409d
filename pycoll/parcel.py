"""Python objects between two ranks: pickled, but for the memory of the arrays in them, which travels as it is."""

from __future__ import annotations

import io
import pickle
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .comm import Communicator

_ROOM = 6  # sizes of arrays that the first message has room for
_ALIGNED = 64  # bytes: where an array in a body begins


class Parcel:
    """An object ready to be sent. Raises what pickle raises for it."""

    def __init__(self, content: Any) -> None:
        self.pickled, self.arrays = _pickled(content)
        self.nbytes = len(self.pickled) + sum(array.nbytes for array in self.arrays)

    def send(self, comm: Communicator, to: int) -> None:
        """Messages: sizes; more sizes, if there are more arrays than the first has room for; pickle; each array."""
        sizes = np.zeros(2 + _ROOM, np.int64)
        lengths = np.array([array.nbytes for array in self.arrays], np.int64)
        sizes[:2] = len(self.pickled), len(lengths)
        if len(lengths) <= _ROOM:
            sizes[2 : 2 + len(lengths)] = lengths
        comm.send(sizes, to)
        if len(lengths) > _ROOM:
            comm.send(lengths, to)
        for array in (np.frombuffer(self.pickled, np.uint8), *self.arrays):
            if array.nbytes:
                comm.send(array, to)


def to_body(content: Any) -> np.ndarray:
    """The object as one array of uint8, into which the memory of the arrays in it is copied: for one message."""
    pickled, arrays = _pickled(content)
    table = np.array([len(arrays), len(pickled), *(array.nbytes for array in arrays)], np.int64)
    begins, end = _layout(table)
    body = np.empty(end, np.uint8)
    parts = [table.view(np.uint8), np.frombuffer(pickled, np.uint8), *arrays]
    for begin, part in zip([0, table.nbytes, *begins], parts, strict=True):
        body[begin : begin + part.nbytes] = part
    return body


def from_body(body: np.ndarray) -> Any:
    """The object that to_body() made the array of. Arrays in it lie in the body's memory."""
    count = int(body[:8].view(np.int64)[0])
    table = body[: 8 * (2 + count)].view(np.int64)
    begins, _ = _layout(table)
    buffers = [body[begin : begin + bytes] for begin, bytes in zip(begins, table[2:].tolist(), strict=True)]
    return pickle.loads(body[table.nbytes : table.nbytes + int(table[1])].data, buffers=buffers)


def _layout(table: np.ndarray) -> tuple[list[int], int]:
    """Where each array of a body begins, and where the body ends."""
    end, begins = table.nbytes + int(table[1]), []
    for bytes in table[2:].tolist():
        begins.append(-(-end // _ALIGNED) * _ALIGNED)
        end = begins[-1] + bytes
    return begins, end


@dataclass
class Arrival:
    """An object that has come, still pickled."""

    pickled: np.ndarray
    arrays: list[np.ndarray]

    @property
    def nbytes(self) -> int:
        return self.pickled.nbytes + sum(array.nbytes for array in self.arrays)

    def open(self) -> Any:
        """The object; arrays in it lie in this memory. Raises what unpickling raises."""
        return pickle.loads(self.pickled.data, buffers=self.arrays)


def receive(comm: Communicator, source: int) -> Arrival:
    """What rank `source` sends next."""
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
    return Arrival(pickled, arrays)


def _pickled(content: Any) -> tuple[bytes, list[np.ndarray]]:
    """The object's pickle, and beside it the memory of the arrays in it."""
    buffers: list[pickle.PickleBuffer] = []
    if "torch" in sys.modules:
        stream = io.BytesIO()
        _Pickler(stream, protocol=5, buffer_callback=buffers.append).dump(content)
        pickled = stream.getvalue()
    else:
        pickled = pickle.dumps(content, protocol=5, buffer_callback=buffers.append)
    return pickled, [np.frombuffer(buffer.raw(), np.uint8) for buffer in buffers]


class _Pickler(pickle.Pickler):
    """One that keeps the memory of torch's tensors apart as well, where they are dense and on the CPU."""

    def reducer_override(self, obj: Any) -> Any:
        torch = sys.modules["torch"]
        if type(obj) is not torch.Tensor or obj.device.type != "cpu" or obj.layout != torch.strided:
            return NotImplemented
        if obj.requires_grad or obj.is_conj() or obj.is_neg() or obj.is_quantized or not obj.numel():
            return NotImplemented
        words = obj.contiguous().reshape(-1).view(torch.uint8).numpy()
        return _tensor, (words, str(obj.dtype).removeprefix("torch."), tuple(obj.shape))


def _tensor(words: np.ndarray, dtype: str, shape: tuple[int, ...]) -> Any:
    import torch

    return torch.from_numpy(words).view(getattr(torch, dtype)).reshape(shape)
