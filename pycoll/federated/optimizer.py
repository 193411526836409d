"""What the server does with the aggregated update: Reddi et al. 2021, "Adaptive federated optimization", algorithm 2.

The update of a round is a step *towards* the clients, the negative of a gradient, and is added.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from ..errors import InvalidArgument


@dataclass
class FedAvg:
    """parameters += lr * update. lr=1: the clients' mean (McMahan et al. 2017)."""

    lr: float = 1.0
    state: dict[str, np.ndarray] = field(default_factory=dict, init=False, repr=False)  # float64[count] each

    def __post_init__(self) -> None:
        self._check("lr", self.lr, 0 < self.lr < math.inf, "a finite number above 0")

    def step(self, parameters: np.ndarray, update: np.ndarray) -> np.ndarray:
        """The next parameters, float64[count]. Nothing is changed in place but `state`."""
        return parameters + self.lr * self.direction(update)

    def direction(self, update: np.ndarray) -> np.ndarray:
        return update

    def _check(self, what: str, got: object, right: bool, wanted: str) -> None:
        if not right:
            raise InvalidArgument(f"{type(self).__name__}: {what} is {got!r}, wanted {wanted}")


@dataclass
class FedAvgM(FedAvg):
    """With momentum: v = momentum * v + update; parameters += lr * v (Hsu et al. 2019)."""

    momentum: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check(
            "momentum",
            self.momentum,
            isinstance(self.momentum, (int, float)) and 0 <= self.momentum < 1,
            "at least 0 and below 1",
        )

    def direction(self, update: np.ndarray) -> np.ndarray:
        velocity = self.momentum * self.state.get("velocity", 0.0) + update
        self.state["velocity"] = velocity
        return velocity


@dataclass
class FedAdam(FedAvg):
    """m and v as in Adam, without correction of the start; parameters += lr * m / (sqrt(v) + tau)."""

    lr: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    tau: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        pair = isinstance(self.betas, (tuple, list)) and len(self.betas) == 2
        right = pair and all(0 <= beta < 1 for beta in self.betas)
        self._check("betas", self.betas, right, "two numbers of at least 0 and below 1")
        self._check("tau", self.tau, 0 < self.tau < math.inf, "a finite number above 0")

    def direction(self, update: np.ndarray) -> np.ndarray:
        first, second = self.betas
        mean = first * self.state.get("mean", 0.0) + (1 - first) * update
        square = second * self.state.get("square", 0.0) + (1 - second) * update**2
        self.state.update(mean=mean, square=square)
        return mean / (np.sqrt(square) + self.tau)
