"""Parameters that change from step to step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .arguments import check_whole
from .errors import InvalidArgument


class Schedule:
    """A number for each step, from 0."""

    def at(self, step: int) -> float:
        """The number of step `step`."""
        raise NotImplementedError


@dataclass(frozen=True)
class Warmup(Schedule):
    """The ratio of a sparse codec in the first steps, when gradients are large and change fast.

    ratio: where it ends. steps: how many each stage before that lasts. stages: the ratios before; by default those of
    Deep Gradient Compression (Lin et al., arXiv 1712.01887, 3.3): 25 %, 6.25 %, 1.56 %, 0.4 %, as far as they are above
    `ratio`.
    """

    ratio: float
    steps: int
    stages: Sequence[float] = (0.25, 0.0625, 0.015625, 0.004)

    def __post_init__(self) -> None:
        if not all(0 < r <= 1 for r in (self.ratio, *self.stages)):
            raise InvalidArgument(f"Warmup: ratios are {self.ratio} and {list(self.stages)}, wanted above 0, at most 1")
        check_whole("Warmup", "steps", self.steps, 1)

    def at(self, step: int) -> float:
        """The ratio of step `step`."""
        stages = [stage for stage in self.stages if stage > self.ratio]
        return stages[step // self.steps] if step // self.steps < len(stages) else self.ratio
