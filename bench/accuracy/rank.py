"""One rank of bench/time_to_accuracy.py: trains, and writes FOLDER/rankN.json.

    python -m accuracy.rank CONTESTANT SEED FOLDER TASK STOP     TASK is JSON, STOP the steps to go on for at the target

Time and bytes are taken from one evaluation to the next; each begins with all ranks at a barrier, so that neither the
evaluation nor waiting for it counts. Bytes are what the host's interface has sent, whoever sent it, headers and all.
What is examined is the model that all ranks have: under a local method, that of the last agreement.
"""

from __future__ import annotations

import copy
import json
import statistics
import sys
import time
import zlib
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from .contestants import BY_NAME, Contestant
from .groups import Group, join
from .task import TARGET, Data, Task, accuracy, batches, build, read

SENT = Path("/sys/class/net/eth0/statistics/tx_bytes")
COMPUTE_STEPS = 15


def sent() -> int:
    return int(SENT.read_text())


def optimizer_of(model: nn.Module, task: Task, adamw: float) -> torch.optim.Optimizer:
    if adamw:
        return torch.optim.AdamW(model.parameters(), lr=adamw, fused=True)
    return torch.optim.SGD(model.parameters(), lr=task.rate, momentum=task.momentum, fused=True)


def advance(model: nn.Module, optimizer: torch.optim.Optimizer, images: torch.Tensor, labels: torch.Tensor) -> None:
    optimizer.zero_grad()
    functional.cross_entropy(model(images), labels).backward()
    optimizer.step()


def compute_seconds(model: nn.Module, task: Task, data: Data, group: Group, adamw: float) -> float:
    """A step without communication, of the slowest rank: every rank on a model of its own, all at once."""
    own = copy.deepcopy(model)
    optimizer, share = optimizer_of(own, task, adamw), task.batch // group.size
    times = []
    group.sum(0.0)
    for _ in range(COMPUTE_STEPS):
        begin = time.perf_counter()
        advance(own, optimizer, data.train_images[:share], data.train_labels[:share])
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def train(group: Group, contestant: Contestant, seed: int, data: Data, task: Task, beyond: int) -> dict[str, object]:
    model = build(seed)
    compute = compute_seconds(model, task, data, group, contestant.adamw)
    wrapped, optimizer = group.wrap(model, optimizer_of(model, task, contestant.adamw))
    scale = contestant.adamw / task.rate if contestant.adamw else 1.0
    dealt = batches(len(data.train_images), task.batch, seed)
    seconds, nbytes, accuracies = [], [], []
    common, last = accuracy(model, data), task.steps
    for evaluated in range(task.every, task.steps + 1, task.every):
        group.sum(0.0)
        before, begin = sent(), time.perf_counter()
        for step in range(evaluated - task.every + 1, evaluated + 1):
            mine = next(dealt)[group.rank :: group.size]
            for settings in optimizer.param_groups:
                settings["lr"] = scale * task.rate_at(step)
            advance(wrapped, optimizer, data.train_images[mine], data.train_labels[mine])
        seconds.append(time.perf_counter() - begin)
        nbytes.append(sent() - before)
        if group.rank == 0 and evaluated % contestant.agree == 0:
            common = accuracy(model, data)
        # Rank 0's decides for all, so that all stop alike.
        accuracies.append(group.sum(common if group.rank == 0 else 0.0))
        if accuracies[-1] >= TARGET:
            last = min(last, evaluated + beyond)
        if evaluated >= last and evaluated % contestant.agree == 0:
            break
    weights = b"".join(parameter.detach().numpy().tobytes() for parameter in model.parameters())
    return {
        "seconds": seconds,
        "bytes": nbytes,
        "accuracies": accuracies,
        "compute": compute,
        "weights": zlib.crc32(weights),
        "parameters": len(weights) // 4,
    }


def main(name: str, seed: str, folder: str, task: str, beyond: str) -> None:
    torch.set_num_threads(1)  # ranks share the cores
    contestant = BY_NAME[name]
    group = join(contestant)
    here = Path(folder)
    data = read(here / "data.npz")
    result = train(group, contestant, int(seed), data, Task(**json.loads(task)), int(beyond))
    (here / f"rank{group.rank}.json").write_text(json.dumps(result))
    group.sum(0.0)  # rank 0's end is the end of all
    group.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
