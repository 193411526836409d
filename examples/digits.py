"""Handwritten digits: the data, the network and the training loop of the examples here.

A global batch is dealt out to the ranks in turn, also the uneven last one: nothing is dropped. Each rank's loss is the
sum over its samples times ranks / samples in the batch, so that the mean over ranks is the mean over the global batch,
however many samples a rank has.
"""

import sys
import time
from dataclasses import dataclass, field

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional
from tqdm import tqdm

import pycoll


@dataclass
class History:
    """What a training run leaves behind."""

    losses: list[float] = field(default_factory=list)  # of each step, mean over the global batch
    accuracies: list[float] = field(default_factory=list)  # of each epoch, on the test set
    parameters: list[torch.Tensor] = field(default_factory=list)  # after each epoch, flat
    seconds: list[float] = field(default_factory=list)  # of each step, on this rank
    wire_bytes: float = 0.0  # a step, sent by this rank


def build(seed, dtype):
    # Smooth throughout. A ReLU or a max pooling can flip a branch over the last bit of its input; then the two runs
    # drift apart, as any two float32 runs do whose sums are ordered differently (to 1e-1 in trials), and prove less.
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.GELU(),
        nn.Conv2d(16, 32, 3, padding=1, stride=2),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(32 * 4 * 4, 64),
        nn.GELU(),
        nn.Linear(64, 10),
    ).to(dtype)


def load(seed, dtype):
    images, labels = load_digits(return_X_y=True)
    images = (images - images.mean()) / images.std()
    split = train_test_split(images, labels, test_size=0.2, stratify=labels, random_state=seed)
    x_train, x_test = (torch.tensor(x, dtype=dtype).reshape(-1, 1, 8, 8) for x in split[:2])
    y_train, y_test = (torch.tensor(y) for y in split[2:])
    return x_train, y_train, x_test, y_test


def train(arguments, data, comm=None, codec=None, label=None):
    """Over the ranks of `comm`, gradients encoded by `codec`, or in this process alone.

    Every random choice depends on the seed only.
    """
    x_train, y_train, x_test, y_test = data
    model = build(arguments.seed, x_train.dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=arguments.lr, momentum=0.9)
    rank, ranks = 0, 1
    if comm is not None:
        optimizer = pycoll.DistributedOptimizer(optimizer, model.named_parameters(), comm, codec=codec)
        rank, ranks = comm.rank, comm.size
        sent = optimizer.stats()["wire_bytes"]
    order = torch.Generator().manual_seed(arguments.seed)
    history = History()
    times, sums = history.seconds, []
    steps = -(-len(x_train) // arguments.batch)
    label = label or (f"{ranks} rank{'s' * (ranks > 1)}" if comm is not None else "1 process")
    with tqdm(total=arguments.epochs * steps, desc=label, ncols=88, unit=" steps", disable=rank != 0) as bar:
        for epoch in range(arguments.epochs):
            for batch in torch.randperm(len(x_train), generator=order).split(arguments.batch):
                begin = time.perf_counter()
                mine = batch[rank::ranks]
                optimizer.zero_grad()
                logits = model(x_train[mine])
                loss = functional.cross_entropy(logits, y_train[mine], reduction="sum")
                (loss * ranks / len(batch)).backward()
                optimizer.step()
                sums.append(loss.item() / len(batch))
                times.append(time.perf_counter() - begin)
                bar.update()
            with torch.no_grad():
                history.accuracies.append((model(x_test).argmax(1) == y_test).double().mean().item())
                history.parameters.append(torch.cat([p.flatten() for p in model.parameters()]))
            history.losses = average(sums, comm)
            if rank == 0:
                loss, accuracy = np.mean(history.losses[-steps:]), history.accuracies[-1]
                bar.write(f"epoch {epoch + 1:3d}   loss {loss:.5f}   test accuracy {accuracy:.2%}", file=sys.stdout)
    if comm is not None:
        history.wire_bytes = (optimizer.stats()["wire_bytes"] - sent) / len(times)
        optimizer.close()
    return history


def average(sums, comm):
    """Each step's loss over the global batch: a rank's share is its samples' sum over the batch's size."""
    total = np.array(sums, np.float64)
    if comm is not None:
        comm.allreduce(total)
    return total.tolist()
