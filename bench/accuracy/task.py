"""What is learnt: scikit-learn's handwritten digits, by a convolutional network of 2.1 million parameters.

All random choices depend on the seed alone, so that every contestant of a seed starts from the same weights, sees the
same images in the same order, and is examined on the same test set.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

TARGET = 0.97


@dataclass(frozen=True)
class Task:
    """Steps and their schedule. `batch` is that of all ranks together."""

    steps: int = 100
    batch: int = 64
    rate: float = 0.1
    momentum: float = 0.9
    warmup: int = 10
    every: int = 2  # steps between evaluations

    def rate_at(self, step: int) -> float:
        """The learning rate of a step, from 1 on: it rises over the warm-up, then falls to zero at the end."""
        return self.rate * min(step / self.warmup, (self.steps + 1 - step) / (self.steps + 1 - self.warmup))


@dataclass
class Data:
    train_images: torch.Tensor
    train_labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor


def build(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 4 * 4, 4096),
        nn.ReLU(),
        nn.Linear(4096, 10),
    )


def write(seed: int, file: Path) -> None:
    """Splits the digits, a fifth for the test, once for all ranks: they need not import scikit-learn."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    images = ((images - images.mean()) / images.std()).astype(np.float32).reshape(-1, 1, 8, 8)
    split = train_test_split(images, labels, test_size=0.2, stratify=labels, random_state=seed)
    np.savez(file, **dict(zip(("train_images", "test_images", "train_labels", "test_labels"), split, strict=True)))


def read(file: Path) -> Data:
    with np.load(file) as arrays:
        return Data(**{name: torch.from_numpy(arrays[name]) for name in arrays.files})


def batches(count: int, batch: int, seed: int) -> Iterator[torch.Tensor]:
    """Indices of each step's global batch, without end. What a pass over the data leaves over is dropped."""
    order = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.randperm(count, generator=order)[: count - count % batch].split(batch)


@torch.no_grad()
def accuracy(model: nn.Module, data: Data) -> float:
    return float((model(data.test_images).argmax(1) == data.test_labels).double().mean())
