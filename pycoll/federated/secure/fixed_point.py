"""Numbers as integers modulo 2^32 or 2^64, whose sum is exact in any order."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ...errors import InvalidArgument


@dataclass(frozen=True)
class FixedPoint:
    """Steps of 2^-fraction, as many as fit: the sum of `terms` numbers of magnitude `range` does not overflow.

    bits: 32 or 64, of the integers. range: largest magnitude of a number, above 0.
    """

    bits: int
    range: float
    terms: int

    @property
    def dtype(self) -> type[np.unsignedinteger]:
        return np.uint32 if self.bits == 32 else np.uint64

    @property
    def fraction(self) -> int:
        # One bit is the sign. float64 has 52 bits after the first, so steps finer than that would be empty.
        return min(self.bits - 2 - math.ceil(math.log2(self.range * self.terms)), 52)

    def encode(self, x: np.ndarray) -> np.ndarray:
        """uint[count], two's complement, rounded to the nearest step. Raises InvalidArgument beyond `range`."""
        largest = float(np.abs(x).max(initial=0.0))
        if not largest <= self.range:
            raise InvalidArgument(
                f"secure aggregation: a weighted update has magnitude {largest:g}, wanted at most range {self.range:g}"
            )
        steps = np.multiply(x, math.ldexp(1.0, self.fraction), dtype=np.float64)
        np.rint(steps, out=steps)
        return steps.astype(np.int64).astype(self.dtype)

    def decode(self, total: np.ndarray) -> np.ndarray:
        """float64[count] of a sum of encoded numbers."""
        signed = total.view(np.int32 if self.bits == 32 else np.int64)
        return np.multiply(signed, math.ldexp(1.0, -self.fraction), dtype=np.float64)
