"""Who gossips with whom: rank arithmetic only.

At a step rank i sends to the ranks peers(i), and all that a rank holds is divided evenly: each of its peers takes
1 / (1 + peers) of it, and so does the rank itself. As a matrix W, x(t + 1) = W x(t); its columns sum to 1, so the sum
over ranks stays. Where as many ranks send to a rank as it sends to, rows sum to 1 too, and all ranks' values go to the
mean. Else (`balanced` is False) they go to multiples of it that push-sum divides out.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import ClassVar

import numpy as np

from ..arguments import check_whole
from ..errors import InvalidArgument


class Topology:
    """What all topologies have in common. One of your own overrides `peers`; the three marks say what is true of it.

    balanced: as many ranks send to a rank as it sends to, all of them equally many. static: the same at every step.
    Ranks compare its fields, so these are alike on all of them; the first exchange of a step checks its peers.
    """

    balanced: ClassVar[bool] = True
    static: ClassVar[bool] = True

    def peers(self, rank: int, size: int, step: int) -> Sequence[int]:
        """The ranks that `rank` sends to at `step`, each once and never itself; every rank computes the same."""
        raise NotImplementedError

    def period(self, size: int) -> int | None:
        """After how many steps it begins anew; None: never."""
        return 1 if self.static else None

    def check(self, size: int) -> None:
        """Raises InvalidArgument if there is none for so many ranks."""

    def matrix(self, size: int, step: int = 0) -> np.ndarray:
        """W of a step, float64[size, size]: row i says how rank i weighs what it receives."""
        matrix = np.zeros((size, size))
        for rank in range(size):
            peers = self.peers(rank, size, step)
            matrix[[rank, *peers], rank] = 1 / (1 + len(peers))
        return matrix

    def spectral_gap(self, size: int) -> float:
        """1 - the factor by which the distance from consensus shrinks in a step, in the long run; 0 to 1.

        Where the topology repeats, by the second largest eigenvalue of W, or of the product of a period's. Where it is
        drawn anew, by that of the mean of W^T W over 1000 steps (Boyd et al., IEEE Trans. Inf. Theory 52(6), 2006): the
        factor of the root mean square distance, of which single runs are often a little better.
        """
        self.check(size)
        if size == 1:
            return 1.0
        period = self.period(size)
        if period is None:
            return 1 - math.sqrt(max(0.0, self.mean_square(size)))
        steps = (self.matrix(size, step) for step in range(period))
        product = functools.reduce(lambda product, matrix: matrix @ product, steps)
        # Columns sum to 1, so 1 is an eigenvalue with that left vector; this takes it out and leaves the others.
        rest = product - np.outer(np.full(size, 1 / size), np.ones(size))
        largest = np.abs(np.linalg.eigvals(rest)).max()
        # Where nothing is left, rounding is: the root of a period would make something of it.
        return float(1 - (largest if largest > size * 1e-12 else 0.0) ** (1 / period))

    def mean_square(self, size: int, steps: int = 1000) -> float:
        """The largest eigenvalue of the mean of W^T W over vectors that sum to zero, which W leaves such."""
        centred = np.eye(size) - 1 / size
        matrices = (self.matrix(size, step) @ centred for step in range(steps))
        return float(np.linalg.eigvalsh(sum(matrix.T @ matrix for matrix in matrices) / steps)[-1])


@dataclass(frozen=True)
class Ring(Topology):
    """To the next and the previous rank. Any number of ranks; the gap falls as 1 / ranks²."""

    def peers(self, rank: int, size: int, step: int) -> Sequence[int]:
        return _others(rank, ((rank + 1) % size, (rank - 1) % size))


@dataclass(frozen=True)
class Torus(Topology):
    """To the four neighbours on a grid whose edges meet; the gap falls as 1 / ranks.

    rows: divides the number of ranks; 0: the divisor nearest to its root, which a prime number does not have.
    """

    rows: int = 0

    def check(self, size: int) -> None:
        rows = self.rows
        if isinstance(rows, bool) or not isinstance(rows, int) or rows < 0:
            raise InvalidArgument(f"Torus: rows is {rows!r}, wanted a whole number of at least 2, or 0")
        if rows == 1 or (rows and (size % rows or size // rows < 2)):
            raise InvalidArgument(f"Torus: {size} ranks do not make {rows} rows of two or more; wanted a divisor")
        if not rows and _divisor(size) == 1:
            raise InvalidArgument(f"Torus: {size} ranks make no grid of two rows or more; take Ring or Exponential")

    def peers(self, rank: int, size: int, step: int) -> Sequence[int]:
        rows = self.rows or _divisor(size)
        columns = size // rows
        row, column = divmod(rank, columns)
        across = (row * columns + (column + d) % columns for d in (1, -1))
        along = ((row + d) % rows * columns + column for d in (1, -1))
        return _others(rank, (*across, *along))


@dataclass(frozen=True)
class Exponential(Topology):
    """To the ranks 1, 2, 4, 8, ... further (Ying et al., arXiv 2110.13363); the gap falls as 1 / log ranks.

    Of one direction, and yet balanced.
    """

    def peers(self, rank: int, size: int, step: int) -> Sequence[int]:
        return _others(rank, ((rank + (1 << k)) % size for k in range(_log2(size))))


@dataclass(frozen=True)
class OnePeerExponential(Topology):
    """To one rank a step: 1 further, then 2, 4, 8, ... Where ranks are a power of two, log2(ranks) steps average
    exactly: the gap is 1."""

    static: ClassVar[bool] = False

    def period(self, size: int) -> int | None:
        return max(1, _log2(size))

    def peers(self, rank: int, size: int, step: int) -> Sequence[int]:
        return _others(rank, ((rank + (1 << step % max(1, _log2(size)))) % size,))


@dataclass(frozen=True)
class RandomMatching(Topology):
    """Pairs, drawn anew at every step by seed and step; of an odd number, one rank stays alone."""

    seed: int = 0
    static: ClassVar[bool] = False

    def check(self, size: int) -> None:
        check_whole("RandomMatching", "seed", self.seed, 0)

    def peers(self, rank: int, size: int, step: int) -> Sequence[int]:
        return _others(rank, (_partners(self.seed, size, step)[rank],))

    def mean_square(self, size: int, steps: int = 1000) -> float:
        # Without drawing: W is a projection, so W^T W = W, and any two ranks are as likely to be a pair as any others.
        return (size - 2) / (2 * size - 2) if size % 2 == 0 else 0.5


@dataclass(frozen=True)
class RandomPeer(Topology):
    """Every rank draws one other at every step and sends to it: some get several messages, some none.

    Not balanced: only push-sum finds the mean.
    """

    seed: int = 0
    balanced: ClassVar[bool] = False
    static: ClassVar[bool] = False

    def check(self, size: int) -> None:
        check_whole("RandomPeer", "seed", self.seed, 0)

    def peers(self, rank: int, size: int, step: int) -> Sequence[int]:
        return _others(rank, ((rank + _drawn(self.seed, size, step)[rank]) % size,))


def checked_peers(topology: Topology, size: int, step: int) -> list[list[int]]:
    """Of each rank its peers at a step. Raises InvalidArgument for what topologies must not say, nor claim."""
    peers = []
    for rank in range(size):
        said = list(topology.peers(rank, size, step))
        if len(set(said)) < len(said) or not all(isinstance(p, Integral) and 0 <= p < size and p != rank for p in said):
            raise InvalidArgument(
                f"{type(topology).__name__}: at step {step} peers of rank {rank} are {said}, wanted others of {size} "
                "ranks, each once"
            )
        peers.append([int(peer) for peer in said])
    heard = [1 / (1 + len(its)) for its in peers]
    for its in peers:
        for peer in its:
            heard[peer] += 1 / (1 + len(its))
    for rank, weight in enumerate(heard):
        if topology.balanced and abs(weight - 1) > 1e-9:
            raise InvalidArgument(
                f"{type(topology).__name__}: at step {step} weights of what rank {rank} hears sum to {weight:.3g}, "
                "wanted 1 of a balanced topology; say balanced = False and take push_sum=True"
            )
    return peers


def _others(rank: int, ranks: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted(set(ranks) - {rank}))


def _log2(size: int) -> int:
    """Rounded up."""
    return (size - 1).bit_length()


def _divisor(size: int) -> int:
    """The largest that is not above the root."""
    return next(d for d in range(math.isqrt(size), 0, -1) if size % d == 0)


@functools.lru_cache(maxsize=8)
def _partners(seed: int, size: int, step: int) -> list[int]:
    """Of each rank the other of its pair; the last of an odd number is its own."""
    order = np.random.default_rng((seed, step)).permutation(size)
    partners = np.arange(size)
    pairs = order[: size - size % 2].reshape(-1, 2)
    partners[pairs] = pairs[:, ::-1]
    return partners.tolist()


@functools.lru_cache(maxsize=8)
def _drawn(seed: int, size: int, step: int) -> list[int]:
    return np.random.default_rng((seed, step)).integers(1, max(2, size), size).tolist()


__all__ = ["Exponential", "OnePeerExponential", "RandomMatching", "RandomPeer", "Ring", "Topology", "Torus"]
