"""PowerSGD (Vogels, Karimireddy, Jaggi, arXiv 1905.13727): matrices travel as two thin factors."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import _core
from .arguments import check_whole
from .codec import Codec
from .errors import InvalidArgument
from .feedback import Feedback


@dataclass(frozen=True)
class PowerSGD(Codec):
    """Each matrix M (n, m) as P (n, rank) times Q (m, rank) transposed: two dense allreduces of their factors.

    One step of power iteration from the last step's Q, which lives in the feedback (without one, from random numbers of
    `seed`). Arrays of more than two dimensions count as (first, product of the rest). What has fewer, or would not
    shrink, is summed as it is, with the first factors.

    Give it a list of matrices, with one feedback for all of them, so that their factors travel together; or a
    DistributedOptimizer. Arrays are float32; NumPy or torch on the CPU. Ranks agree to the bit if their processors and
    NumPy builds are alike, since every rank multiplies the factors itself.
    """

    rank: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("PowerSGD", "rank", self.rank, 1)

    @property
    def core(self) -> _core.Encoder:  # type: ignore[override]
        raise InvalidArgument("PowerSGD: does not encode one rank's array by itself: its factors are made by all ranks")

    # Called by Communicator.allreduce, with its arguments.
    def _allreduce(
        self,
        comm: Any,
        x: Any,
        op: str,
        out: Any,
        factor: float | None,
        algo: str | None,
        timeout: float | None,
        wait: bool,
        feedback: Feedback | None,
        step: int | None,
        everywhere: bool,
    ) -> Any:
        if op not in ("sum", "avg") or factor is not None:
            raise InvalidArgument(f"allreduce: rank {comm.rank} got PowerSGD and op {op}, wanted sum or avg")
        options: dict[str, Any] = {"op": op, "algo": algo, "timeout": timeout}
        run = _Run(self, comm, x, x if out is None else out, feedback, options)
        if not wait:
            return run
        run.wait()
        return run.result()

    def compresses(self, shape: tuple[int, ...]) -> bool:
        """True if an array of this shape has fewer numbers in its factors."""
        n, m = _sides(shape)
        return len(shape) >= 2 and self.rank * (n + m) < n * m


class _Run:
    """One operation under way; what a Work is for others. The second allreduce starts when it is waited for."""

    def __init__(
        self, how: PowerSGD, comm: Any, x: Any, out: Any, feedback: Feedback | None, options: dict[str, Any]
    ) -> None:
        self._clock = _Clock()
        self._comm, self._options, self._feedback, self._result = comm, options, feedback, out
        self._divisor = comm.size if options["op"] == "avg" else 1
        inputs = [_as_numpy(array, comm.rank) for array in _listed(x)]
        self._outputs = [_as_numpy(array, comm.rank) for array in _listed(out)]
        if [a.shape for a in inputs] != [a.shape for a in self._outputs]:
            raise InvalidArgument(f"allreduce: rank {comm.rank} got out arrays that differ from its arrays in shape")
        residuals = _split(feedback, inputs, comm.rank)
        self._kept = feedback is not None and feedback.residual is not None
        # What this rank means to send; where a residual is kept, in its memory.
        self._matrices: list[np.ndarray] = []
        for array, residual in zip(inputs, residuals, strict=True):
            meant = array.reshape(_sides(array.shape)) if residual is None else residual.reshape(_sides(array.shape))
            if residual is not None:
                meant += array.reshape(meant.shape)
            self._matrices.append(meant)
        self._thin = [how.compresses(array.shape) for array in inputs]
        factors = {} if feedback is None else feedback.factors
        key = f"{how.rank}:{how.seed}:{[a.shape for a in inputs]}"
        if factors.get("key") != key:
            factors.clear()
            factors["key"] = key
            factors["q"] = _first_guess(how, self._matrices, self._thin)
        self._q: list[np.ndarray] = factors["q"]
        self._factors = factors
        parts = [m @ q if thin else m for m, q, thin in zip(self._matrices, self._q, self._thin, strict=True)]
        self._p, self._p_parts = _joined(parts)
        self._clock.lap("encode")
        self._work = comm.allreduce(self._p, wait=False, **options)
        self._done = False

    def wait(self, timeout: float | None = None) -> None:
        """Waits for both allreduces, and puts the result where it belongs."""
        if self._done:
            return
        self._work.wait(timeout)
        self._clock.lap("wire")
        for p, thin in zip(self._p_parts, self._thin, strict=True):
            if thin:
                # For an average P is one already; its scale does not matter, since it is made orthonormal.
                p[...] = np.linalg.qr(p.astype(np.float64))[0]
        own = [m.T @ p for m, p, thin in zip(self._matrices, self._p_parts, self._thin, strict=True) if thin]
        summed, parts = _joined(own)
        self._clock.lap("encode")
        before = self._comm.stats()["wire_bytes"]
        self._comm.allreduce(summed, **self._options)
        self._clock.lap("wire")
        # Every rank has the same sums, so all forget what is not finite, or it would be sent again and again.
        poisoned = not (np.isfinite(summed).all() and np.isfinite(self._p).all())
        mine, sums = iter(own), iter(parts)
        for i, (matrix, p) in enumerate(zip(self._matrices, self._p_parts, strict=True)):
            result = self._outputs[i].reshape(matrix.shape)
            if self._thin[i]:
                self._q[i] = next(sums).copy()
                if self._kept:
                    matrix -= p @ next(mine).T
                result[...] = p @ self._q[i].T
            else:
                result[...] = p
                if self._kept:
                    matrix[...] = 0
        if poisoned:
            self._factors.clear()
            for matrix in self._matrices if self._kept else ():
                matrix[~np.isfinite(matrix)] = 0
        self._clock.lap("decode")
        self._note(self._comm.stats()["wire_bytes"] - before, summed.size)
        self._done = True

    def _note(self, wire_bytes: int, count: int) -> None:
        """Both allreduces send alike for each number."""
        if self._feedback is None:
            return
        numbers = count + self._p.size
        wire_bytes = wire_bytes * numbers // count if count else 0
        seconds = {f"{name}_seconds": spent for name, spent in self._clock.spent.items()}
        elements = sum(m.size for m in self._matrices)
        report = {"wire_bytes": wire_bytes, "sent": numbers, "kept": elements, "dense_payloads": 0}
        self._feedback.note({**seconds, **report})

    def done(self) -> bool:
        """True after wait()."""
        return self._done

    def result(self) -> Any:
        """The array, or list of arrays, with the result; waits for it."""
        self.wait()
        return self._result


class _Clock:
    """Seconds spent on each of three things."""

    def __init__(self) -> None:
        self.spent = {"encode": 0.0, "wire": 0.0, "decode": 0.0}
        self._since = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.spent[name] += now - self._since
        self._since = now


def _listed(x: Any) -> list[Any]:
    return list(x) if isinstance(x, (list, tuple)) else [x]


def _as_numpy(x: Any, rank: int) -> np.ndarray:
    array = x.detach().numpy() if hasattr(x, "data_ptr") and str(x.dtype) == "torch.float32" else x
    if not isinstance(array, np.ndarray) or array.dtype != np.float32 or not array.flags.c_contiguous:
        got = getattr(x, "dtype", type(x).__name__)
        raise InvalidArgument(
            f"allreduce: rank {rank} got PowerSGD and {got}, wanted C-contiguous float32 in CPU memory"
        )
    return array


def _sides(shape: tuple[int, ...]) -> tuple[int, int]:
    return (shape[0], int(np.prod(shape[1:], dtype=np.int64))) if len(shape) >= 2 else (1, int(np.prod(shape)))


def _split(feedback: Feedback | None, arrays: list[np.ndarray], rank: int) -> list[np.ndarray | None]:
    """The residual's part of each array."""
    if feedback is None or feedback.residual is None:
        return [None] * len(arrays)
    whole = _as_numpy(feedback.residual, rank).reshape(-1)
    if whole.size != sum(a.size for a in arrays):
        raise InvalidArgument(
            f"allreduce: rank {rank} got a residual of {whole.size} elements for {sum(a.size for a in arrays)}"
        )
    ends = np.cumsum([a.size for a in arrays])[:-1]
    return list(np.split(whole, ends))


def _first_guess(how: PowerSGD, matrices: list[np.ndarray], thin: list[bool]) -> list[np.ndarray]:
    random = np.random.Generator(np.random.Philox(how.seed))
    return [
        random.standard_normal((m.shape[1], how.rank), np.float32) if t else np.empty(0, np.float32)
        for m, t in zip(matrices, thin, strict=True)
    ]


def _joined(parts: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """One flat array with all parts, and views of it in their shapes."""
    flat = np.concatenate([part.reshape(-1) for part in parts]) if parts else np.empty(0, np.float32)
    views, begin = [], 0
    for part in parts:
        views.append(flat[begin : begin + part.size].reshape(part.shape))
        begin += part.size
    return flat, views


__all__ = ["PowerSGD"]
