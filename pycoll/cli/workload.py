"""The gradients that `pycoll advise` is asked about: from a number, a list of buckets, or a torch model."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pycoll.cost import Bucket

from .launch import LaunchError

BUCKET_BYTES = 25 << 20  # as in DistributedOptimizer
SIDE = 1024  # of the matrices that a number of parameters is taken for
UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def number(text: str) -> float:
    """ "25M" -> 26214400.0, "1e9" -> 1e9."""
    scale = UNITS.get(text[-1:].upper(), 1)
    return float(text[:-1] if scale > 1 else text) * scale


def of_parameters(count: int) -> list[Bucket]:
    """Full buckets and what is left."""
    full, rest = divmod(count, BUCKET_BYTES // 4)
    return of_bytes([BUCKET_BYTES] * full + [4 * rest] * (rest > 0))


def of_bytes(sizes: Sequence[float]) -> list[Bucket]:
    """Buckets of these many bytes."""
    return [Bucket(tuple(_matrices(max(1, int(size) // 4)))) for size in sizes]


def _matrices(count: int) -> Iterator[tuple[int, ...]]:
    whole, rest = divmod(count, SIDE * SIDE)
    yield from [(SIDE, SIDE)] * whole
    if rest >= SIDE:
        yield (rest // SIDE, SIDE)
    if rest % SIDE:
        yield (rest % SIDE,)


def of_model(where: str) -> list[Bucket]:
    """What a DistributedOptimizer would do with the model that script.py:function makes."""
    path, _, function = where.rpartition(":")
    if not path or not Path(path).is_file():
        raise LaunchError(f"--from {where}: wanted script.py:function, and the script to be there")
    spec = importlib.util.spec_from_file_location("model_of_advise", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not callable(getattr(module, function, None)):
        raise LaunchError(f"--from {where}: {path} has no function {function}")
    return of_parameters_of(getattr(module, function)())


def of_parameters_of(model: Any) -> list[Bucket]:
    """The buckets of a torch model: those that a codec takes, and those that stay dense."""
    from pycoll.buckets import plan
    from pycoll.codec import Cast
    from pycoll.compression import Compression

    takes = Compression(Cast()).takes
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    return [
        Bucket(tuple(tuple(p.shape) for _, p in members), takes(members[0][1]))
        for members in plan(trained, BUCKET_BYTES, lambda p: (p.dtype, takes(p)))
    ]
