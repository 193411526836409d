"""From many updates to one: the weighted mean, and what a few wrong updates cannot move far."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..arguments import check_whole
from ..errors import InvalidArgument


class TooFewUpdates(InvalidArgument):
    """What an aggregate raises that cannot hold what it promises with so few: the round is void."""


class Aggregate:
    """What all of them have in common. Use one of the subclasses."""

    def __call__(self, updates: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """float64[count] of updates[clients, count], in order of the clients' numbers, and their weights[clients].

        All are finite. May raise TooFewUpdates.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Mean(Aggregate):
    """The mean, weighted by samples (FedAvg, McMahan et al. 2017). One client can move it anywhere."""

    def __call__(self, updates: np.ndarray, weights: np.ndarray) -> np.ndarray:
        total = np.zeros(updates.shape[1])
        for update, weight in zip(updates, weights, strict=True):
            total += weight * update.astype(np.float64)
        return total / weights.sum()


@dataclass(frozen=True)
class Median(Aggregate):
    """Each coordinate's median; no weights (Yin et al. 2018). Holds against fewer than half of the clients."""

    def __call__(self, updates: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return np.median(updates, axis=0).astype(np.float64)


@dataclass(frozen=True)
class TrimmedMean(Aggregate):
    """Each coordinate's mean without its largest and smallest, a part `trim` of each; no weights (Yin et al. 2018).

    It takes at least 1 / trim clients, of whom it leaves out one on either side.
    """

    trim: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.trim < 0.5:
            raise InvalidArgument(f"TrimmedMean: trim is {self.trim!r}, wanted at least 0 and below 0.5")

    def __call__(self, updates: np.ndarray, weights: np.ndarray) -> np.ndarray:
        cut = int(self.trim * len(updates))
        if self.trim and not cut:
            raise TooFewUpdates(
                f"TrimmedMean: {len(updates)} clients reported, wanted at least {math.ceil(1 / self.trim)} "
                f"for trim {self.trim:g}"
            )
        kept = np.sort(updates, axis=0)[cut : len(updates) - cut]
        return kept.mean(axis=0, dtype=np.float64)


@dataclass(frozen=True)
class Krum(Aggregate):
    """The mean of the `keep` updates that lie closest to their neighbours; no weights (Blanchard et al. 2017).

    faulty: how many clients of a round may be wrong; their number must be at least 2 * faulty + 3. keep: 1 is Krum,
    more is Multi-Krum.
    """

    faulty: int
    keep: int = 1

    def __post_init__(self) -> None:
        check_whole("Krum", "faulty", self.faulty, 0)
        check_whole("Krum", "keep", self.keep, 1)

    def __call__(self, updates: np.ndarray, weights: np.ndarray) -> np.ndarray:
        clients = len(updates)
        if clients < 2 * self.faulty + 3 or clients < self.keep:
            raise TooFewUpdates(
                f"Krum: {clients} clients reported, wanted at least {max(2 * self.faulty + 3, self.keep)} "
                f"for faulty {self.faulty} and keep {self.keep}"
            )
        points = updates.astype(np.float64)
        squares = (points**2).sum(axis=1)
        distances = squares[:, None] + squares[None, :] - 2 * points @ points.T
        distances[~np.isfinite(distances)] = np.inf  # an update that is not finite is nobody's neighbour
        np.fill_diagonal(distances, np.inf)
        scores = np.sort(distances, axis=1)[:, : clients - self.faulty - 2].sum(axis=1)
        kept = np.sort(np.argsort(scores, kind="stable")[: self.keep])
        return updates[kept].mean(axis=0, dtype=np.float64)
