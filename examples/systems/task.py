"""What is the same for all systems: the data, the model, the length of the training, and who computes how slowly."""

import time
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Task:
    """Steps and batches are those of a rank, of `ranks`; `slow` is a rank and how many times longer it computes."""

    ranks: int
    steps: int = 80
    batch: int = 32
    lr: float = 0.05
    momentum: float = 0.9
    compute: float = 0.003  # seconds a step sleeps besides its computation, so that ranks may share cores
    slow: tuple[int, float] | None = None
    seed: int = 0
    every: int = 5  # steps between snapshots

    def build(self):
        """The first model, the same on all ranks."""
        torch.manual_seed(self.seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 10))

    def pace(self, rank):
        factor = self.slow[1] if self.slow and self.slow[0] == rank else 1.0
        return Pace(self.compute, factor)

    def optimizer(self, parameters, system):
        """What a rank steps with, or hands to its system."""
        if system.adamw:
            return torch.optim.AdamW(parameters, lr=system.adamw)
        lr = self.lr / self.ranks if system.divide else self.lr
        return torch.optim.SGD(parameters, lr=lr, momentum=self.momentum)


class Pace:
    """A rank's computation: how long it takes, and how much there has been. What is computed stands in a `with`.

    A step's sleep comes at its end. A slow rank also sleeps for what its computation would have taken longer.
    """

    def __init__(self, compute, factor):
        self.busy = 0.0  # seconds
        self.steps = 1  # that a `with` is about
        self._compute, self._factor, self._begin = compute, factor, 0.0

    def __enter__(self):
        self._begin = time.perf_counter()

    def __exit__(self, *_):
        took = time.perf_counter() - self._begin
        time.sleep(self._compute * self.steps * self._factor + took * (self._factor - 1))
        self.busy += time.perf_counter() - self._begin

    def count(self, optimizer):
        """From now on the time of the optimizer's own steps counts, also inside one of pycoll's that wraps it."""
        begin = [0.0]

        def before(*_):
            begin[0] = time.perf_counter()

        def after(*_):
            self.busy += time.perf_counter() - begin[0]

        optimizer.register_step_pre_hook(before)
        optimizer.register_step_post_hook(after)


@torch.no_grad()
def accuracy(model, parameters, x, y):
    """Of the model with these parameters (flat), on samples x with labels y."""
    nn.utils.vector_to_parameters(parameters, model.parameters())
    return (model(x).argmax(1) == y).double().mean().item()
