"""Parameters cut into pieces, ranges of rows that a server holds; and what travels of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from ..buckets import Named
from ..codec import Codec, decode, encode
from .ring import HashRing


@dataclass(frozen=True)
class Piece:
    """Rows begin to end of the first dimension of a parameter; of a scalar, one row."""

    index: int  # among all pieces
    parameter: int  # index of the parameter
    begin: int
    end: int
    server: int
    compressed: bool

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """This piece of a parameter, or of what has its shape; a view. A scalar stays one."""
        return tensor[self.begin : self.end] if tensor.dim() else tensor


@dataclass(frozen=True)
class Entry:
    """Rows of a piece (all where None) on their way: float32 numbers as they are, or what a codec made of them, uint8.

    Numbers may be in the memory of a gradient or a parameter, whose next change they would follow.
    """

    piece: int
    rows: np.ndarray | None
    wire: np.ndarray

    @property
    def encoded(self) -> bool:
        """True if a codec made the wire."""
        return self.wire.dtype == np.uint8

    def numbers(self) -> np.ndarray:
        """float32; those of a wire that is not encoded in place."""
        return decode(self.wire) if self.encoded else self.wire

    def copy(self) -> Entry:
        """The same in memory of its own."""
        return self if self.encoded else replace(self, wire=self.wire.copy())


@dataclass(frozen=True)
class Loaded:
    """A piece as a checkpoint has it: float32 numbers, and the optimizer's state."""

    piece: int
    numbers: np.ndarray
    state: dict[str, Any]


@dataclass
class Request:
    """What a worker asks of a server; the parts are done in this order."""

    options: list[dict[str, Any]] | None = None  # of the optimizer's groups
    push: list[Entry] | None = None
    tables: list[int] = field(default_factory=list)  # parameters pushed by rows, also if none lies in a piece
    pull: list[tuple[int, np.ndarray | None]] | None = None  # pieces and rows
    base: int = 0  # version that the pushed gradients were computed from
    leave: bool = False
    state: bool = False  # asks for the optimizer's state
    exact: list[int] = field(default_factory=list)  # pieces whose numbers are asked for as the server has them
    load: list[Loaded] | None = None  # of all of a server's pieces; waits until all workers ask to load


@dataclass
class Reply:
    """What a server answers."""

    version: int
    entries: list[Entry] = field(default_factory=list)
    state: dict[int, dict[str, Any]] | None = None


def as_rows(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, with at least one dimension."""
    return tensor.unsqueeze(0) if tensor.dim() == 0 else tensor


def cut(named: Sequence[Named], servers: Sequence[int], piece_bytes: int, compressed: Sequence[bool]) -> list[Piece]:
    """Pieces of at most piece_bytes bytes of float32 (of one row, where that is longer), each with its server."""
    ranges: dict[str, tuple[int, int, int]] = {}
    bytes_of: dict[str, int] = {}
    for i, (name, parameter) in enumerate(named):
        rows = as_rows(parameter).shape[0]
        row_bytes = 4 * max(1, parameter.numel() // max(1, rows))
        step = max(1, piece_bytes // row_bytes)
        for begin in range(0, rows, step):
            end = min(rows, begin + step)
            ranges[f"{name}[{begin}:{end}]"] = (i, begin, end)
            bytes_of[f"{name}[{begin}:{end}]"] = (end - begin) * row_bytes
    placed = HashRing(servers).place(bytes_of)
    return [Piece(n, *ranges[key], placed[key], compressed[ranges[key][0]]) for n, key in enumerate(ranges)]


def flat(tensor: torch.Tensor) -> np.ndarray:
    """A tensor's elements as a float32 array; in its memory where that has them so."""
    return tensor.detach().to(torch.float32).contiguous().numpy().reshape(-1)


class Residuals:
    """What encoding left out of each piece, by row, until these rows are sent again."""

    def __init__(self, codec: Codec | None, stream: int) -> None:
        self._codec, self._stream = codec, stream
        self._kept: dict[int, np.ndarray] = {}
        self._step = -1

    def step(self) -> None:
        """The next entries belong to another step."""
        self._step += 1

    def state(self, pieces: Sequence[Piece]) -> dict[str, Any]:
        """For load(): `step`, and of each parameter of which something was left out, by its index, rows of it."""
        whole: dict[int, np.ndarray] = {}
        for index, kept in self._kept.items():
            rows = max(piece.end for piece in pieces if piece.parameter == pieces[index].parameter)
            piece = pieces[index]
            array = whole.setdefault(piece.parameter, np.zeros((rows, kept.shape[1]), np.float32))
            array[piece.begin : piece.end] = kept
        return {"step": self._step, "residuals": whole}

    def load(self, state: dict[str, Any], pieces: Sequence[Piece]) -> None:
        """Takes what state() gave, also where parameters are cut otherwise now."""
        self._step = state["step"]
        whole = {parameter: np.asarray(array, np.float32) for parameter, array in state["residuals"].items()}
        self._kept = {
            piece.index: whole[piece.parameter][piece.begin : piece.end].copy()
            for piece in pieces
            if piece.parameter in whole and piece.compressed and self._codec is not None
        }

    def entry(self, piece: Piece, values: np.ndarray, rows: np.ndarray | None) -> Entry:
        """values: float32, flat, of `rows` or all rows of the piece."""
        count = piece.end - piece.begin if rows is None else len(rows)
        if self._codec is None or not piece.compressed or count == 0:
            return Entry(piece.index, rows, values)
        shape = (piece.end - piece.begin, values.size // count)
        kept = self._kept.setdefault(piece.index, np.zeros(shape, np.float32))
        residual = kept.reshape(-1) if rows is None else kept[rows].reshape(-1)
        wire = encode(values, self._codec.at(self._step), residual=residual, step=self._step, stream=self._stream)
        if rows is not None:
            kept[rows] = residual.reshape(count, -1)
        return Entry(piece.index, rows, wire)
