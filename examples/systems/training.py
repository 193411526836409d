"""Training under a system whose optimizer stands in the place of torch's."""

from __future__ import annotations

import time

import torch
from torch.nn import functional
from torch.nn.utils import parameters_to_vector
from tqdm import tqdm

import pycoll

from .record import Record


def train(comm, task, data, system, codec, label):
    """On every rank of `comm`, each with every size-th sample; a Record."""
    x, y = (part[comm.rank :: comm.size] for part in data[:2])
    drawn = torch.Generator().manual_seed(task.seed + comm.rank)
    steps = share(comm, task, x, y) if system.by_speed else task.steps
    model, pace = task.build(), task.pace(comm.rank if system.wrap else None)  # one rank alone is not a slow one
    optimizer = inner = task.optimizer(model.parameters(), system)
    pace.count(inner)
    if system.wrap is None:
        steps *= task.ranks  # alone, it has all ranks' steps to take
    else:
        optimizer = system.wrap(inner, model.named_parameters(), comm, codec)
    before, record = sent(optimizer), Record(samples=steps * task.batch)
    comm.barrier()
    begin = time.perf_counter()
    for step in tqdm(range(1, steps + 1), desc=label, ncols=88, unit=" steps", disable=comm.rank != 0):
        with pace:
            optimizer.zero_grad()
            chosen = torch.randint(len(x), (task.batch,), generator=drawn)
            functional.cross_entropy(model(x[chosen]), y[chosen]).backward()
        optimizer.step()
        if step % task.every == 0:
            record.snapshots.append((time.perf_counter() - begin, flat(model)))
    if system.finish is not None:
        system.finish(optimizer, comm)
    record.seconds, record.busy = time.perf_counter() - begin, pace.busy
    record.snapshots.append((record.seconds, flat(model)))
    record.sent = sent(optimizer) - before
    if optimizer is not inner:
        optimizer.close()
    return record


def share(comm, task, x, y):
    """This rank's part of all ranks' steps, by the speed that is measured now."""
    model, pace = task.build(), task.pace(comm.rank)

    def work():
        with pace:
            functional.cross_entropy(model(x[: task.batch]), y[: task.batch]).backward()

    speeds = pycoll.data.measured_speeds(comm, work)
    return len(pycoll.data.by_index(task.steps * comm.size, comm.size, speeds)[comm.rank])


def flat(model):
    return parameters_to_vector(model.parameters()).detach().clone()


def sent(optimizer):
    """Bytes that this rank has sent for the optimizer."""
    if not hasattr(optimizer, "stats"):
        return 0
    stats = optimizer.stats()
    if "wire_bytes" in stats:
        return stats["wire_bytes"]
    return stats["sent_bytes"] + stats["server"]["sent_bytes"]
