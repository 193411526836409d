"""Which clients a round asks, and which of them do not answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..arguments import check_whole
from ..errors import InvalidArgument


class Sample:
    """What all of them have in common. Use one of the subclasses."""

    def draw(self, random: np.random.Generator, clients: int) -> list[int]:
        """Numbers of the clients of a round, ascending."""
        raise NotImplementedError

    def rate(self, clients: int) -> float:
        """The part of the clients that a round asks, on average."""
        raise NotImplementedError

    def most(self, clients: int) -> int:
        """As many clients as a round may ask."""
        return clients


@dataclass(frozen=True)
class Everyone(Sample):
    """Every client, every round."""

    def draw(self, random: np.random.Generator, clients: int) -> list[int]:
        return list(range(clients))

    def rate(self, clients: int) -> float:
        return 1.0


@dataclass(frozen=True)
class Uniform(Sample):
    """`count` clients, any of them as likely."""

    count: int

    def __post_init__(self) -> None:
        check_whole("Uniform", "count", self.count, 1)

    def draw(self, random: np.random.Generator, clients: int) -> list[int]:
        return sorted(int(i) for i in random.choice(clients, self.most(clients), replace=False))

    def rate(self, clients: int) -> float:
        return self.most(clients) / clients

    def most(self, clients: int) -> int:
        return min(self.count, clients)


@dataclass(frozen=True)
class Poisson(Sample):
    """Each client with `probability`, independent of the others: what accounts of privacy suppose."""

    probability: float

    def __post_init__(self) -> None:
        if not 0 < self.probability <= 1:
            raise InvalidArgument(f"Poisson: probability is {self.probability!r}, wanted above 0 and at most 1")

    def draw(self, random: np.random.Generator, clients: int) -> list[int]:
        return [int(i) for i in np.flatnonzero(random.random(clients) < self.probability)]

    def rate(self, clients: int) -> float:
        return self.probability


#: True if the client drops out of the round after it was asked: f(round, client).
Dropout = Callable[[int, int], bool]


@dataclass(frozen=True)
class RandomDropout:
    """Each client of a round drops out with `probability`, by the seed's choice."""

    probability: float
    seed: int = 0

    def __call__(self, round: int, client: int) -> bool:
        return bool(np.random.default_rng([self.seed, round, client]).random() < self.probability)
