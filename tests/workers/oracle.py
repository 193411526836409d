"""What every rank puts in, and what must come out, from the ranks' numbers alone: the oracle never communicates.

All comparisons are for equality. Integers are random over their whole range (sums and products wrap, in NumPy as in
the library); floats are small integers, whose sums, products (powers of two; powers of i for complex) and halves are
exact in every type and order; what is left of an average is one correctly rounded division.
"""

from __future__ import annotations

import functools

import ml_dtypes
import numpy as np

BF16 = np.dtype(ml_dtypes.bfloat16)
FLOATS = [np.dtype(t) for t in ("float16", "float32", "float64")] + [BF16]
COMPLEX = [np.dtype(t) for t in ("complex64", "complex128")]
INTEGERS = [np.dtype(f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)]
BOOL = np.dtype(bool)
DTYPES = [*FLOATS, *COMPLEX, *INTEGERS, BOOL]
OPS = ("sum", "avg", "min", "max", "prod", "and", "or", "xor", "premul_sum")
FACTOR = 0.5
MOST = 6000  # elements: more repeat


def defined(op: str, dtype: np.dtype) -> bool:
    if op in ("min", "max"):
        return dtype not in COMPLEX
    if op in ("and", "or", "xor"):
        return dtype in INTEGERS or dtype == BOOL
    if op == "premul_sum":
        return dtype in FLOATS or dtype in COMPLEX
    return op != "avg" or dtype != BOOL


@functools.cache
def _pattern(rank: int, dtype: np.dtype, op: str) -> np.ndarray:
    random = np.random.default_rng([rank, dtype.itemsize, OPS.index(op)])
    if dtype == BOOL:
        return random.random(MOST) < (0.8 if op in ("prod", "min", "and") else 0.3)
    if dtype in INTEGERS and op != "avg":
        return np.frombuffer(random.bytes(MOST * dtype.itemsize), dtype)
    if op == "prod":
        turns = random.integers(0, 4, MOST)
        powers = (1j**turns).round() if dtype in COMPLEX else 2.0 ** (turns // 3)
        return powers.astype(dtype)
    low = 0 if dtype.kind == "u" else -3
    real = random.integers(low, 4, MOST)
    return (real + 1j * random.integers(-3, 4, MOST)).astype(dtype) if dtype in COMPLEX else real.astype(dtype)


def source(rank: int, count: int, dtype: np.dtype, op: str = "sum", start: int = 0) -> np.ndarray:
    """What `rank` puts in: elements start to start + count. A new array."""
    pattern = _pattern(rank, dtype, op)
    if start + count <= MOST:
        return pattern[start : start + count].copy()
    return np.resize(pattern, start + count)[start:]


@functools.cache
def _reduced_pattern(size: int, dtype: np.dtype, op: str) -> np.ndarray:
    inputs = [_pattern(rank, dtype, op) for rank in range(size)]
    if dtype == BOOL:
        fold = {"prod": np.logical_and, "min": np.logical_and, "and": np.logical_and, "xor": np.logical_xor}
        return functools.reduce(fold.get(op, np.logical_or), inputs)
    if op in ("min", "max", "prod", "and", "or", "xor"):
        names = {"min": "minimum", "max": "maximum", "prod": "multiply"}
        return functools.reduce(getattr(np, names.get(op, f"bitwise_{op}")), inputs)
    half = dtype.itemsize == 2 and dtype in FLOATS
    total = functools.reduce(np.add, [x.astype(np.float32) if half else x for x in inputs])
    if op == "premul_sum":
        total = total * total.dtype.type(FACTOR)
    elif op == "avg" and dtype in INTEGERS:
        total = (np.sign(total.astype(np.int64)) * (np.abs(total.astype(np.int64)) // size)).astype(dtype)
    elif op == "avg":
        parts = total.view(total.real.dtype)  # of a complex number the parts are divided, each by itself
        total = (parts / parts.dtype.type(size)).astype(parts.dtype).view(total.dtype)
    return total.astype(dtype)


def reduced(size: int, count: int, dtype: np.dtype, op: str, start: int = 0) -> np.ndarray:
    """What the ranks' inputs come to: elements start to start + count."""
    pattern = _reduced_pattern(size, dtype, op)
    return pattern[start : start + count] if start + count <= MOST else np.resize(pattern, start + count)[start:]


def equal(got: np.ndarray, wanted: np.ndarray) -> bool:
    """The same numbers: the same bits, but for the sign of a complex number's zeros."""
    if got.dtype != wanted.dtype or got.size != wanted.size:
        return False
    if wanted.dtype in COMPLEX:
        return bool((got.ravel() == wanted.ravel()).all())
    return got.tobytes() == wanted.tobytes()
