"""What the server does with the aggregated update: Reddi et al. 2021, "Adaptive federated optimization", algorithm 2.

The update of a round is a step *towards* the clients, the negative of a gradient, and is added.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass
class FedAvg:
    """parameters += lr * update. lr=1: the clients' mean (McMahan et al. 2017)."""

    lr: float = 1.0
    state: dict[str, np.ndarray] = field(default_factory=dict, repr=False)  # float64[count] each; for checkpoints

    def step(self, parameters: np.ndarray, update: np.ndarray) -> np.ndarray:
        """The next parameters, float64[count]. Nothing is changed in place but `state`."""
        return parameters + self.lr * self.direction(update)

    def direction(self, update: np.ndarray) -> np.ndarray:
        return update


@dataclass
class FedAvgM(FedAvg):
    """With momentum: v = momentum * v + update; parameters += lr * v (Hsu et al. 2019)."""

    momentum: float = 0.9

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

    def direction(self, update: np.ndarray) -> np.ndarray:
        first, second = self.betas
        mean = first * self.state.get("mean", 0.0) + (1 - first) * update
        square = second * self.state.get("square", 0.0) + (1 - second) * update**2
        self.state.update(mean=mean, square=square)
        return mean / (np.sqrt(square) + self.tau)
