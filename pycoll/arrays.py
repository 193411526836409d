"""New arrays of the same library as an existing one: where results go if the caller gave no place."""

from __future__ import annotations

from typing import Any

import numpy as np

from .errors import InvalidArgument


def result_of(x: Any, count: int) -> Any:
    """A new one-dimensional array of `count` elements of x's type: torch for a torch tensor, NumPy for all else."""
    if hasattr(x, "data_ptr"):
        import torch

        return torch.empty(count, dtype=x.dtype)
    return np.empty(count, dtype=_as_numpy(x).dtype)


def result_like(x: Any, numerator: int, denominator: int, operation: str, rank: int) -> Any:
    """A new array of x's type with numerator/denominator times its elements: its first dimension is scaled.

    operation and rank are for the error: InvalidArgument where the elements do not divide.
    """
    shape = tuple(getattr(x, "shape", ())) or (_as_numpy(x).size,)
    count = int(np.prod(shape, dtype=np.int64))
    if count * numerator % denominator:
        raise InvalidArgument(
            f"{operation}: rank {rank} got {count} elements, which do not divide evenly over {denominator} ranks; "
            "give counts"
        )
    if shape and shape[0] * numerator % denominator == 0:
        shape = (shape[0] * numerator // denominator, *shape[1:])
    else:
        shape = (count * numerator // denominator,)
    return result_of(x, int(np.prod(shape, dtype=np.int64))).reshape(shape)


def _as_numpy(x: Any) -> np.ndarray:
    """The elements that x exports; its bytes are not touched."""
    if isinstance(x, np.ndarray):
        return x
    try:
        return np.asarray(memoryview(x))  # not of x: NumPy reads bytes as one string
    except TypeError:
        return np.from_dlpack(x)
