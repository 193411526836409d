"""Handwritten digits for models that differ from rank to rank: the training loop of gossip_digits and local_digits."""

import threading
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from tqdm import tqdm

import pycoll
from pycoll import loopback

_building = threading.Lock()


@dataclass
class Run:
    """What training with one method leaves behind."""

    label: str
    losses: list[float] = field(default_factory=list)  # of each step, mean over ranks
    accuracy: float = 0.0  # of the common model, on the test set
    wire_bytes: float = 0.0  # sent by a rank, of the one that sends most


def build(seed):
    with _building:  # ranks that are threads share torch's generator
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10))


def train(comm, data, label, wrap, *, steps=300, batch=16, lr=0.05, inner=None):
    """Each rank has every size-th sample and draws batches from them; wrap(optimizer, named_parameters) makes the rest.

    inner: makes the inner optimizer of parameters; by default SGD with momentum.
    """
    x_train, y_train, x_test, y_test = data
    mine = torch.arange(comm.rank, len(x_train), comm.size)
    model = build(seed=0)
    optimizer = inner(model.parameters()) if inner else torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    optimizer = wrap(optimizer, model.named_parameters())
    before = optimizer.stats()["wire_bytes"]
    drawn = torch.Generator().manual_seed(comm.rank)
    run, losses = Run(label), []
    for _ in tqdm(range(steps), desc=f"{label:28}", ncols=88, unit=" steps", disable=comm.rank != 0):
        chosen = mine[torch.randint(len(mine), (batch,), generator=drawn)]
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(x_train[chosen]), y_train[chosen])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    for last in ("average", "synchronize"):  # of gossip; of local methods
        if hasattr(optimizer, last):
            getattr(optimizer, last)()
    sent = np.array([optimizer.stats()["wire_bytes"] - before], np.float64)
    optimizer.close()
    run.wire_bytes = float(comm.allreduce(sent, op="max")[0])
    run.losses = comm.allreduce(np.array(losses), op="avg").tolist()
    with torch.no_grad():
        run.accuracy = (model(x_test).argmax(1) == y_test).double().mean().item()
    return run


def over_ranks(function, threads):
    """Calls function(comm) on the ranks that a launcher started, or alone on so many threads; what it gives rank 0."""
    torch.set_num_threads(1)  # ranks share the cores
    with pycoll.init() as comm:
        if comm.size > 1:
            result = function(comm)
            return result if comm.rank == 0 else None
    return loopback.run(threads, function)[0]


def smooth(values, width=10):
    """Running mean over the last `width` values."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    end = np.arange(1, len(values) + 1)
    begin = np.maximum(end - width, 0)
    return (sums[end] - sums[begin]) / (end - begin)


def table(runs):
    print(f"\n{'':28}{'accuracy':>10}{'loss':>10}{'wire bytes a rank':>20}{'× fewer':>10}")
    for run in runs:
        fewer = runs[0].wire_bytes / run.wire_bytes
        loss = np.mean(run.losses[-max(1, len(run.losses) // 10) :])
        print(f"{run.label:28}{run.accuracy:10.2%}{loss:10.4f}{run.wire_bytes:20,.0f}{fewer:10.1f}")
    print("\nloss: of each rank's own model, mean of the last tenth; accuracy: of the common model")
