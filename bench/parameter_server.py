"""What a step costs with a parameter server, beside DistributedOptimizer.

    pycoll run -n 2 bench/parameter_server.py --json out/parameter-server.json

Every rank is worker and server, in mode sync. A step is forward and backward pass of one linear layer without bias,
and the optimizer's step (SGD). Both kinds take their steps in turn, block by block. Afterwards the parameters must be
the same within the rounding of sums; the largest difference is printed.

Columns: elements, and milliseconds of a step (median of all, of the slowest rank).

--json FILE writes {"schema": "pycoll-parameter-server/1", "environment": {...}, "settings": {...}, "results": [...]}.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # ranks share the cores

import numpy as np
import torch
from table import environment_of

import pycoll

BLOCK = 5  # steps of one kind before the next


def steps(model: torch.nn.Module, optimizer: Any, x: torch.Tensor, seconds: list[float]) -> None:
    for _ in range(BLOCK):
        begin = time.perf_counter()
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
        seconds.append(time.perf_counter() - begin)


def measure(comm: pycoll.Communicator, elements: int, settings: argparse.Namespace) -> list[dict[str, Any]]:
    width = round(elements**0.5)
    x = torch.randn(settings.batch, width, generator=torch.Generator().manual_seed(comm.rank))
    models, optimizers = {}, {}
    for kind, wrap in (("parameter server", pycoll.PSOptimizer), ("all-reduce", pycoll.DistributedOptimizer)):
        torch.manual_seed(0)
        models[kind] = torch.nn.Linear(width, width, bias=False)
        optimizer = torch.optim.SGD(models[kind].parameters(), lr=0.1)
        optimizers[kind] = wrap(optimizer, models[kind].named_parameters(), comm)
    seconds: dict[str, list[float]] = {kind: [] for kind in models}
    for _ in range(1 + settings.steps // BLOCK):  # the first warms up
        for kind in models:
            comm.barrier()
            steps(models[kind], optimizers[kind], x, seconds[kind])
    for optimizer in optimizers.values():
        optimizer.close()
    ours, theirs = (model.weight.detach() for model in models.values())
    error = float((ours - theirs).abs().max())
    assert error < 1e-6, f"the parameters differ by {error}"
    slowest = {k: comm.allreduce(np.array(s[BLOCK:]), op="max") for k, s in seconds.items()}
    return [
        {"kind": k, "elements": width**2, "ms": 1e3 * float(np.median(s)), "max_error": error}
        for k, s in slowest.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="A step with a parameter server, and with DistributedOptimizer.")
    parser.add_argument("--elements", default="4096,1000000", help="parameters, separated by commas; nearly so many")
    parser.add_argument("--steps", type=int, default=40, help="of each kind")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--json", type=Path, metavar="FILE")
    settings = parser.parse_args()
    torch.set_num_threads(1)
    with pycoll.init() as comm:
        rows = [row for n in settings.elements.split(",") for row in measure(comm, int(n), settings)]
        environment = environment_of(SimpleNamespace(comm=comm, peer=None))
        rank = comm.rank
    if rank:
        return
    print(f"{environment['ranks']} ranks, each worker and server")
    print(f"{'':18}{'elements':>12}{'ms a step':>12}")
    for row in rows:
        print(f"{row['kind']:18}{row['elements']:12,}{row['ms']:12.2f}")
    print(f"largest difference of the parameters: {max(row['max_error'] for row in rows):.1e}")
    if settings.json:
        settings.json.parent.mkdir(parents=True, exist_ok=True)
        result = {
            "schema": "pycoll-parameter-server/1",
            "environment": environment,
            "settings": {name: value for name, value in vars(settings).items() if name != "json"},
            "results": rows,
        }
        settings.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
