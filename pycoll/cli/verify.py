"""Measures what `pycoll advise` predicted: the same buckets, with each codec."""

from __future__ import annotations

import importlib.util
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from pycoll.codec import Codec
from pycoll.cost import Bucket
from pycoll.powersgd import PowerSGD

from .advice import HALVES, Row
from .tune import slowest, time_batch

LEAST = 3  # steps, of which the median counts


def verified(
    comm: Any, codecs: Mapping[str, Codec], buckets: Sequence[Bucket], rows: Sequence[Row], seconds: float
) -> list[Row]:
    """The rows with measured seconds a step; dense bf16 only where torch is, since NumPy has no such numbers."""
    random = np.random.default_rng(comm.rank)
    gradients = [random.standard_normal(bucket.count, np.float32) for bucket in buckets]
    return [
        row._replace(measured=_measure(comm, _step(comm, row.name, codecs.get(row.name), buckets, gradients), seconds))
        for row in rows
    ]


def _measure(comm: Any, step: Callable[[], None] | None, seconds: float) -> float | None:
    if step is None:
        return None
    step()
    first = slowest(comm, time_batch(comm, step, 1))
    steps = min(100, max(LEAST, int(seconds / first)))
    return slowest(comm, statistics.median(time_batch(comm, step, 1) for _ in range(steps)))


def _step(
    comm: Any, name: str, codec: Codec | None, buckets: Sequence[Bucket], gradients: Sequence[np.ndarray]
) -> Callable[[], None] | None:
    calls = []
    for bucket, gradient in zip(buckets, gradients, strict=True):
        call = _half(comm, gradient) if name == HALVES else _call(comm, codec, bucket, gradient)
        if call is None:
            return None
        calls.append(call)

    def step() -> None:
        for call in calls:
            call()

    return step


def _half(comm: Any, gradient: np.ndarray) -> Callable[[], object] | None:
    if not importlib.util.find_spec("torch"):
        return None
    import torch

    x = torch.from_numpy(gradient).bfloat16()
    out = torch.empty_like(x)
    return lambda: comm.allreduce(x, out=out)


def _call(comm: Any, codec: Codec | None, bucket: Bucket, gradient: np.ndarray) -> Callable[[], object]:
    from pycoll.feedback import Feedback

    if codec is None or not bucket.compressed:
        out = np.empty_like(gradient)
        return lambda: comm.allreduce(gradient, out=out)
    x: Any = gradient
    result: Any = np.empty_like(gradient)
    if isinstance(codec, PowerSGD):
        ends = np.cumsum([int(np.prod(shape)) for shape in bucket.shapes])[:-1]
        x = [part.reshape(shape) for part, shape in zip(np.split(gradient, ends), bucket.shapes, strict=True)]
        result = [np.empty_like(part) for part in x]
    feedback = Feedback(x)
    return lambda: comm.allreduce(x, out=result, codec=codec, feedback=feedback)
