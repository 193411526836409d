"""Differential privacy of clients: clipped updates, Gaussian noise, and what they are worth.

Central: the server adds the noise once, to the sum; it must be trusted, or see sums only (secure aggregation). Local:
each client adds noise of its own before anything leaves it, and trusts nobody. The account is kept by the package
dp-accounting (Renyi differential privacy, Mironov 2017; Mironov et al. 2019).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InvalidArgument


@dataclass(frozen=True)
class Privacy:
    """Use one of the subclasses. clip: largest L2 norm of a client's update. noise: standard deviation / clip.

    seed: only for tests: who knows it can take the noise off again. None draws it from the system's entropy.
    """

    clip: float
    noise: float
    seed: int | None = None

    def __post_init__(self) -> None:
        if not self.clip > 0 or not self.noise >= 0:
            raise InvalidArgument(
                f"privacy: got clip {self.clip!r} and noise {self.noise!r}, wanted above 0 and at least 0"
            )

    def clipped(self, update: np.ndarray) -> np.ndarray:
        """The update, made shorter where its norm is above `clip`."""
        norm = float(np.linalg.norm(update.astype(np.float64)))
        return update if norm <= self.clip else update * update.dtype.type(self.clip / norm)

    def noisy(self, update: np.ndarray, *numbers: int) -> np.ndarray:
        """The update plus noise. numbers: what the noise depends on besides a given seed."""
        random = np.random.default_rng(None if self.seed is None else [self.seed, *numbers])
        return update + random.normal(0.0, self.noise * self.clip, update.shape).astype(update.dtype)

    def epsilon(self, delta: float, rate: float, rounds: int) -> float:
        """Of a client's whole data, after `rounds` rounds that asked each client with probability `rate`."""
        raise NotImplementedError


class Central(Privacy):
    """Noise on the sum of the clipped updates. A client is added or removed; rounds ask by Poisson sampling."""

    def epsilon(self, delta: float, rate: float, rounds: int) -> float:
        accounting = _accounting()
        event = accounting.GaussianDpEvent(self.noise)
        if rate < 1:
            event = accounting.PoissonSampledDpEvent(rate, event)
        return _spent(accounting, event, rounds, delta)


class Local(Privacy):
    """Noise on each clipped update. A client's data are replaced by any other: that moves an update by 2 * clip.

    `rounds` are those in which the client answered; who observes the messages knows them, so sampling hides nothing.
    """

    def epsilon(self, delta: float, rate: float, rounds: int) -> float:
        accounting = _accounting()
        return _spent(accounting, accounting.GaussianDpEvent(self.noise / 2), rounds, delta)


def _spent(accounting: Any, event: Any, rounds: int, delta: float) -> float:
    from dp_accounting import rdp

    accountant = rdp.RdpAccountant()
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.ERROR)  # it warns of orders that it leaves out, which costs a little tightness and no truth
    try:
        if rounds:
            accountant.compose(accounting.SelfComposedDpEvent(event, rounds))
        return float(accountant.get_epsilon(delta))
    finally:
        log.setLevel(level)


def _accounting() -> Any:
    try:
        import dp_accounting
    except ImportError as error:
        raise ImportError(
            "the account of privacy needs the package dp-accounting: pip install 'pycoll[federated]'"
        ) from error
    return dp_accounting
