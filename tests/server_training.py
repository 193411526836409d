"""A small training over a parameter server, or by all-reduce, and what it is made of."""

from __future__ import annotations

import threading

import torch
from torch.nn.functional import cross_entropy

import pycoll

torch.set_num_threads(1)

building = threading.Lock()  # torch's generator is one for all threads


def network():
    with building:
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(20, 64), torch.nn.Tanh(), torch.nn.Linear(64, 3))


def batches(number, count, seed=1):
    draw = torch.Generator().manual_seed(seed + number)
    for _ in range(count):
        x = torch.randn(8, 20, generator=draw)
        yield x, x[:, :3].argmax(1)


def numbers_of(model):
    return torch.cat([p.detach().reshape(-1).float() for p in model.parameters()])


def train(optimizer, model, number, steps, scheduler=None):
    for x, y in batches(number, steps):
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()


def ps_training(comm, make, steps=30, schedule=False, **options):
    """On each rank: (parameters, statistics), trained over a parameter server."""
    model = network()
    wrapped = make(model.parameters())
    workers = options.get("workers") or list(range(comm.size))
    with pycoll.PSOptimizer(wrapped, model.named_parameters(), comm, **options) as optimizer:
        if optimizer.is_worker:
            scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 10, 0.5) if schedule else None
            train(optimizer, model, workers.index(comm.rank), steps, scheduler)
            optimizer.synchronize()
        else:
            optimizer.serve()
    return numbers_of(model), optimizer.stats()


def all_reduce_training(comm, make, steps=30, schedule=False):
    model = network()
    optimizer = pycoll.DistributedOptimizer(make(model.parameters()), model.named_parameters(), comm)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 10, 0.5) if schedule else None
    train(optimizer, model, comm.rank, steps, scheduler)
    optimizer.close()
    return numbers_of(model)


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=1e-3)


def plain_sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1)


def adam(parameters):
    return torch.optim.AdamW(parameters, lr=0.01)
