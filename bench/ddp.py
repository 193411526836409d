"""DistributedDataParallel over pycoll, Gloo and MPI: the time of a training step, and how much of it is communication.

    pycoll run -n 2 bench/ddp.py
    pycoll run -n 2 bench/ddp.py --json out/ddp.json --timeline out/ddp.png

Every contestant trains a copy of one model (a transformer encoder of 25 million parameters) on the same batches, in
the same processes, in turn. A step is zero_grad, forward, backward and SGD; all ranks enter it through a barrier, and
its time is the slowest rank's. "Communication" is a contestant's step less that of DDP whose hook hands each bucket
back at once (bench/ddp_hooks.py): what it adds to all that DDP does anyhow. The difference is taken in every round.

Gradients of the first step are compared with the float64 mean of what the ranks computed, within rounding; after the
last step all contestants must have the same weights on all ranks: bit for bit, where two ranks add two numbers.
"""

# No postponed annotations: DDP compares those of hooks with its own types.
import argparse
import copy
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import ddp_hooks
import ddp_timeline
import numpy as np
import torch
import torch.distributed as dist
from mpi4py import MPI
from peers import machine
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import pycoll.torch

WIDTH, HEADS, LAYERS, TOKENS = 512, 8, 8, 32
PLAIN, SILENT = "no DDP", "DDP, no communication"
WARM_UP = 3  # rounds


def make_model() -> nn.Module:
    torch.manual_seed(1)
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)


def make_batch(turn: int, sequences: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1000 * turn + dist.get_rank())
    return torch.randn(sequences, TOKENS, WIDTH, generator=generator)


class Contestant:
    """A copy of the model, in DDP with a hook, or with a group's own allreduce where there is none."""

    def __init__(self, name: str, net: nn.Module, group: Any = None, hook: Any = None) -> None:
        self.name, self.net = name, copy.deepcopy(net)
        self.model = self.net
        if name != PLAIN:
            self.model = DistributedDataParallel(self.net, process_group=group, gradient_as_bucket_view=True)
            if hook:
                self.model.register_comm_hook(*hook)
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.01)
        self.seconds: list[float] = []  # of each round's step, after the warm-up

    def step(self, x: torch.Tensor) -> list[float]:
        """The moments between forward, backward and optimizer."""
        dist.barrier()
        moments = [time.perf_counter()]
        self.optimizer.zero_grad()
        loss = self.model(x).square().mean()
        moments.append(time.perf_counter())
        loss.backward()
        moments.append(time.perf_counter())
        self.optimizer.step()
        return [*moments, time.perf_counter()]

    def flat_gradients(self) -> torch.Tensor:
        return torch.cat([p.grad.reshape(-1) for p in self.net.parameters()])

    def flat_weights(self) -> torch.Tensor:
        return torch.cat([p.detach().reshape(-1) for p in self.net.parameters()])


def make_contestants(wanted: str, watch: bool) -> list[Contestant]:
    """Those whose name matches. watch: with hooks that note when each bucket's allreduce begins and ends."""
    net, mpi = make_model(), MPI.COMM_WORLD
    gloo = dist.new_group(backend="gloo")
    field = {
        "pycoll, shared buckets": (None, (pycoll.torch.SharedBuckets(), pycoll.torch.allreduce_hook)),
        "pycoll": (None, (None, ddp_hooks.allreduce) if watch else None),
        "Gloo": (gloo, (gloo, ddp_hooks.allreduce) if watch else None),
        "MPI_Allreduce": (gloo, (mpi, ddp_hooks.mpi_allreduce)),
        "MPI_Iallreduce": (gloo, (mpi, ddp_hooks.make_mpi_iallreduce())),
        "MPI_Allreduce in a thread": (gloo, (mpi, ddp_hooks.make_mpi_in_a_thread())),
    }
    chosen = {name: how for name, how in field.items() if re.search(wanted, name)}
    if watch:
        return [Contestant(name, net, group, ddp_hooks.watched(name, hook)) for name, (group, hook) in chosen.items()]
    silent = (None, ddp_hooks.hand_back)
    return [
        Contestant(PLAIN, net),
        Contestant(SILENT, net, None, silent),
        *(Contestant(name, net, *how) for name, how in chosen.items()),
    ]


def check_gradients(contestants: list[Contestant]) -> None:
    """Against the mean in float64: adding P numbers and dividing round P times."""
    ranks = dist.get_world_size()
    mine = contestants[0].flat_gradients().double() / ranks
    mean, size = mine.clone(), mine.abs()
    dist.all_reduce(mean)
    dist.all_reduce(size)
    for contestant in contestants[2:]:
        error = (contestant.flat_gradients().double() - mean).abs()
        if wrong := int((error > ranks * 2**-24 * size + 1e-38).sum()):
            sys.exit(f"{contestant.name}: {wrong} gradients are not the mean of those of the ranks")


def check_weights(contestants: list[Contestant]) -> None:
    first = contestants[2].flat_weights()
    for contestant in contestants[2:]:
        mine = contestant.flat_weights()
        root = mine.clone()
        dist.broadcast(root, 0)
        if not torch.equal(mine, root):
            sys.exit(f"{contestant.name}: weights differ between ranks")
        if dist.get_world_size() == 2 and not torch.equal(mine, first):
            sys.exit(f"{contestant.name}: weights differ from those of {contestants[2].name}")


def measure(contestants: list[Contestant], rounds: int, sequences: int) -> None:
    for turn in range(WARM_UP + rounds):
        x = make_batch(turn, sequences)
        for contestant in contestants[turn % len(contestants) :] + contestants[: turn % len(contestants)]:
            moments = contestant.step(x)
            spent = torch.tensor([moments[-1] - moments[0]], dtype=torch.float64)
            dist.all_reduce(spent, dist.ReduceOp.MAX)
            if turn >= WARM_UP:
                contestant.seconds.append(spent.item())
        if turn == 0:
            check_gradients(contestants)
    check_weights(contestants)


def figures_of(contestants: list[Contestant]) -> list[dict[str, Any]]:
    silent = np.array(contestants[1].seconds)
    rows = []
    for contestant in contestants:
        spent = np.array(contestant.seconds)
        row = {"name": contestant.name, "step_ms": float(np.median(spent) * 1e3), "rounds_ms": (spent * 1e3).tolist()}
        if contestant.name not in (PLAIN, SILENT):
            quartiles = np.percentile((spent - silent) * 1e3, [25, 50, 75]).tolist()
            row |= {"communication_ms": quartiles[1], "communication_quartiles_ms": [quartiles[0], quartiles[2]]}
        rows.append(row)
    return rows


def print_table(rows: list[dict[str, Any]]) -> None:
    print(f"{'milliseconds':28}{'step':>9}{'communication':>16}{'quartiles':>16}")
    for row in rows:
        line = f"{row['name']:28}{row['step_ms']:9.1f}"
        if "communication_ms" in row:
            low, high = row["communication_quartiles_ms"]
            line += f"{row['communication_ms']:16.1f}{f'{low:.1f} - {high:.1f}':>16}"
        print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--sequences", type=int, default=2, help=f"of {TOKENS} tokens, a rank and step")
    parser.add_argument("--contestants", default="", help="those whose name has this regular expression")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--timeline", type=Path, help="draw a step of each")
    options = parser.parse_args()
    torch.set_num_threads(1)
    dist.init_process_group("pycoll", "mpi://")
    contestants = make_contestants(options.contestants, watch=False)
    measure(contestants, options.rounds, options.sequences)
    rows = figures_of(contestants)
    if dist.get_rank() == 0:
        print_table(rows)
        if options.json:
            environment = machine.describe() | {
                "ranks": dist.get_world_size(),
                "torch": torch.__version__,
                "mpi": MPI.Get_library_version().split(",")[0].strip("\0 "),
                "parameters": sum(p.numel() for p in contestants[0].net.parameters()),
            }
            settings = {"rounds": options.rounds, "sequences": options.sequences, "tokens": TOKENS}
            document = {"schema": "pycoll-ddp/1", "environment": environment, "settings": settings, "results": rows}
            options.json.write_text(json.dumps(document, indent=1) + "\n")
    if options.timeline:
        contestants.clear()
        watched = make_contestants(options.contestants, watch=True)
        ddp_timeline.record_and_draw(watched, make_batch(0, options.sequences), options.timeline)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
