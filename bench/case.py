"""One measurement: what is called, on what input, and what must come out. The oracle does not communicate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

CHECK_CHUNK = 1 << 19  # elements compared at a time
DTYPES = ("float16", "bfloat16", "float32", "float64", "int8", "int16", "int32", "int64")
DTYPES += ("uint8", "uint16", "uint32", "uint64")
OPS = ("sum", "avg", "min", "max", "prod", "and", "or", "xor")
# The floating types, and the largest relative error of rounding to each.
UNIT = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 2.0**-53}


@dataclass(frozen=True)
class Piece:
    """A run of a rank's result: `count` elements from `begin`, equal to those from `source` on of rank `of`'s input, or
    to the reduction of all ranks' if `of` is None."""

    count: int
    begin: int = 0
    source: int = 0
    of: int | None = None


@dataclass
class Case:
    """One size of one collective on this rank: what a collective's declarations are given."""

    comm: Any
    mpi: Any  # the mpi4py communicator, or None
    count: int  # elements of the larger array
    dtype: str
    op: str
    options: dict[str, Any] = field(default_factory=dict)  # algo=, if one was asked for

    @property
    def rank(self) -> int:
        return self.comm.rank

    @property
    def size(self) -> int:
        return self.comm.size

    @property
    def share(self) -> int:
        """Elements a rank where `count` is that of all ranks together."""
        return self.count // self.size

    @property
    def mpi_op(self) -> Any:
        from mpi4py import MPI

        names = {"sum": "SUM", "min": "MIN", "max": "MAX", "prod": "PROD", "and": "BAND", "or": "BOR", "xor": "BXOR"}
        return getattr(MPI, names[self.op])


@dataclass(frozen=True)
class Collective:
    """What the harness must know about a collective.

    counts: elements of this rank's input and of its separate output; None for no such array (0 is an empty one).
    pycoll, mpi: given a case and the two arrays, return a function without arguments that runs it once, in place if
        there is no output array.
    pieces: what this rank's result must be.
    busbw: the factor of algbw for so many ranks.
    """

    name: str
    counts: Callable[[Case], tuple[int | None, int | None]]
    pycoll: Callable[[Case, Any, Any], Callable[[], Any]]
    mpi: Callable[[Case, Any, Any], Callable[[], Any]]
    pieces: Callable[[Case], list[Piece]]
    busbw: Callable[[int], float]
    reduces: bool = False
    per_rank: bool = False  # count is that of all ranks together, so a multiple of their number
    has_data: bool = True


# Inputs, a function of rank and index, and what becomes of them.


def inputs(case: Case, rank: int, begin: int, count: int) -> np.ndarray:
    """Elements `begin` ... of rank `rank`'s input, as float32 or wider, or as the integer type itself."""
    index = np.arange(begin, begin + count, dtype=np.uint64)
    bits = index * np.uint64(0x9E3779B97F4A7C15) + np.uint64((rank + 1) * 0xD1B54A32D192ED03 % (1 << 64))
    bits ^= bits >> np.uint64(29)
    bits *= np.uint64(0xBF58476D1CE4E5B9)
    if case.dtype not in UNIT:
        low, spread = (1, 3) if case.op == "prod" else (0, 100)
        return (np.uint64(low) + (bits >> np.uint64(40)) % np.uint64(spread)).astype(case.dtype)
    uniform = (bits >> np.uint64(40)).astype(np.float64) * 2.0**-24  # [0, 1), 24 bits
    # Near 1 for products, so that they stay in range; of both signs otherwise, so that sums cancel.
    return _rounded(1 + (uniform - 0.5) / 16 if case.op == "prod" else 2 * uniform - 1, case.dtype)


def expected(case: Case, begin: int, count: int) -> tuple[np.ndarray, np.ndarray | float]:
    """The reduction of all ranks' inputs, and how far rounding may carry a result from it, whatever the order."""
    parts = [inputs(case, rank, begin, count) for rank in range(case.size)]
    if case.dtype not in UNIT:
        combine = {"sum": np.add, "avg": np.add, "min": np.minimum, "max": np.maximum, "prod": np.multiply}
        combine |= {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}
        total = parts[0].copy()
        for part in parts[1:]:
            combine[case.op](total, part, out=total)  # wraps, as the integers of C do
        return (total // case.size if case.op == "avg" else total), 0.0
    wide = [part.astype(np.float64) for part in parts]
    if case.op in ("min", "max"):
        return (np.minimum if case.op == "min" else np.maximum).reduce(wide), 0.0
    # P - 1 operations in the type that sums (float32 for halves), one more for avg, one rounding of a half at the end.
    unit = UNIT["float64" if case.dtype == "float64" else "float32"]
    gamma = (case.size + 1) * unit / (1 - (case.size + 1) * unit)
    if case.op == "prod":
        exact = np.multiply.reduce(wide)
        bound = gamma * np.abs(exact)
    else:
        divisor = case.size if case.op == "avg" else 1
        exact = np.add.reduce(wide) / divisor
        bound = gamma * np.add.reduce(np.abs(wide)) / divisor
    if case.dtype in ("float16", "bfloat16"):
        tiny = 2.0**-25 if case.dtype == "float16" else 0.0  # subnormal halves
        bound = bound + (np.abs(exact) + bound) * UNIT[case.dtype] + tiny
    if case.dtype == "float64":
        bound = bound * 2  # the oracle rounds as well
    return exact, bound


def fill(case: Case, array: Any) -> None:
    """This rank's input."""
    count = len(array)
    for begin in range(0, count, CHECK_CHUNK):
        end = min(begin + CHECK_CHUNK, count)
        values = inputs(case, case.rank, begin, end - begin)
        if isinstance(array, np.ndarray):
            array[begin:end] = values
        else:
            import torch

            array[begin:end] = torch.from_numpy(np.ascontiguousarray(values))


def check(case: Case, collective: Collective, result: Any) -> tuple[int, int, float]:
    """Wrong elements, elements checked, and the largest error, on this rank."""
    wrong, checked, worst = 0, 0, 0.0
    for piece in collective.pieces(case):
        for offset in range(0, piece.count, CHECK_CHUNK):
            count = min(CHECK_CHUNK, piece.count - offset)
            got = result[piece.begin + offset : piece.begin + offset + count]
            got = got if isinstance(got, np.ndarray) else got.float().numpy()
            if piece.of is None:
                want, bound = expected(case, piece.source + offset, count)
            else:
                want, bound = inputs(case, piece.of, piece.source + offset, count), 0.0
            if case.dtype in UNIT:
                error = np.abs(got.astype(np.float64) - want)
                wrong += int(np.count_nonzero(~(error <= bound)))  # also catches NaN
                worst = max(worst, float(error.max(initial=0.0)))
            else:
                wrong += int(np.count_nonzero(got != want))
            checked += count
    return wrong, checked, worst


def _rounded(values: np.ndarray, dtype: str) -> np.ndarray:
    if dtype != "bfloat16":
        return values.astype(dtype)
    bits = values.astype(np.float32).view(np.uint32)
    return (bits & np.uint32(0xFFFF0000)).view(np.float32)  # any value of the type will do


# Time.
