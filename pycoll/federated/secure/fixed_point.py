"""Numbers as integers modulo 2^32 or 2^64, whose sum is exact in any order."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ...errors import InvalidArgument

LEAST_FRACTION = 8  # bits
_PART = 1 << 14  # numbers encoded at a time, which fit in a core's cache


@dataclass(frozen=True)
class FixedPoint:
    """Steps of 2^-fraction, as many as fit: the sum of `terms` numbers of magnitude `range` does not overflow.

    bits: 32 or 64, of the integers. range: largest magnitude of a number, above 0, finite. Raises InvalidArgument where
    that leaves fewer than 8 bits for the fraction: small numbers would all be rounded to none.
    """

    bits: int
    range: float
    terms: int

    def __post_init__(self) -> None:
        if self.fraction < LEAST_FRACTION:
            most = math.ldexp(1.0, self.bits - 2 - LEAST_FRACTION) / self.terms
            larger = ", or bits=64" if self.bits == 32 and self.range <= math.ldexp(most, 32) else ""
            raise InvalidArgument(
                f"secure aggregation: range {self.range:g}, {self.terms} clients and {self.bits} bits make steps of "
                f"{math.ldexp(1.0, -self.fraction):g}, wanted at most {math.ldexp(1.0, -LEAST_FRACTION):g}: a range "
                f"of at most {most:.4g}{larger}"
            )

    @property
    def dtype(self) -> type[np.unsignedinteger]:
        return np.uint32 if self.bits == 32 else np.uint64

    @property
    def fraction(self) -> int:
        # One bit is the sign. float64 has 52 bits after the first, so steps finer than that would be empty.
        return min(self.bits - 2 - math.ceil(math.log2(self.range * self.terms)), 52)

    def encode(self, x: np.ndarray, weight: float = 1, out: np.ndarray | None = None) -> np.ndarray:
        """x * weight in x's type, then rounded to the nearest step: uint[count], two's complement, into `out` if given.

        Raises InvalidArgument beyond `range`.
        """
        factor = x.dtype.type(weight)
        largest = float(max(abs(x.max(initial=0.0)), abs(x.min(initial=0.0))) * factor)
        if not largest <= self.range:
            raise InvalidArgument(
                f"secure aggregation: a weighted update has magnitude {largest:g}, wanted at most range {self.range:g}"
            )
        out = np.empty(x.size, self.dtype) if out is None else out
        signed = out.view(np.int32 if self.bits == 32 else np.int64)
        steps = np.empty(min(x.size, _PART), x.dtype)
        scale = x.dtype.type(math.ldexp(1.0, self.fraction))  # a power of two: products with it are exact
        for begin in range(0, x.size, _PART):
            part = x[begin : begin + _PART]
            now = steps[: part.size]
            np.multiply(part, factor, out=now)
            np.multiply(now, scale, out=now)
            np.rint(now, out=now)
            signed[begin : begin + _PART] = now
        return out

    def decode(self, total: np.ndarray) -> np.ndarray:
        """float64[count] of a sum of encoded numbers."""
        signed = total.view(np.int32 if self.bits == 32 else np.int64)
        return np.multiply(signed, math.ldexp(1.0, -self.fraction), dtype=np.float64)
