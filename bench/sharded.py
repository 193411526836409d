"""What ShardedOptimizer saves and costs beside DistributedOptimizer: memory a rank, and milliseconds a step.

    pycoll run -n 4 bench/sharded.py

Each trains the same multilayer perceptron with AdamW, in turn. Of the most burdened rank: bytes of the optimizer's
state, bytes that the process has more than with the model alone, right after a backward pass (shared pages count for as
many parts as ranks have them: Pss), and the median time of a step, in all and without forward and backward.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import gc
import statistics
import time

import torch
from torch import nn

import pycoll

CONTESTANTS = {
    "DistributedOptimizer": pycoll.DistributedOptimizer,
    "ShardedOptimizer": pycoll.ShardedOptimizer,
    "ShardedOptimizer, gradients too": functools.partial(pycoll.ShardedOptimizer, shard_gradients=True),
}
MIB = 1 << 20


def perceptron(width: int, depth: int) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(*(module for _ in range(depth) for module in (nn.Linear(width, width), nn.ReLU())))


def proportional_bytes() -> int:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what is free goes back first
    with open("/proc/self/smaps_rollup") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024


def measure(comm, wrap, options) -> list[float]:
    """State MiB, memory MiB, milliseconds a step, and of these outside the model, on this rank."""
    model = perceptron(options.width, options.depth)
    x = torch.randn(options.batch, options.width)
    model(x).sum().backward()  # what libraries allocate, and torch imports, at the first time does not count
    torch.optim.AdamW(nn.Linear(1, 1).parameters()).step()
    model.zero_grad()
    before = proportional_bytes()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    optimizer = wrap(optimizer, model.named_parameters(), comm, bucket_bytes=options.bucket_mib * MIB)
    memory, times, outside = 0, [], []
    for step in range(options.steps + 2):
        optimizer.zero_grad()
        comm.barrier()
        begin = time.perf_counter()
        model(x).square().mean().backward()
        middle = time.perf_counter()
        if step == 1:
            comm.barrier()
            memory = proportional_bytes() - before
            comm.barrier()
            continue
        optimizer.step()
        if step > 1:  # after warming up
            times.append(time.perf_counter() - begin)
            outside.append(time.perf_counter() - middle)
    tensors = [t for state in optimizer.state.values() for t in state.values() if isinstance(t, torch.Tensor)]
    state = sum(t.numel() * t.element_size() for t in tensors)
    optimizer.zero_grad()
    optimizer.close()
    return [state / MIB, memory / MIB, statistics.median(times) * 1e3, statistics.median(outside) * 1e3]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--depth", type=int, default=16, help="layers of width x width")
    parser.add_argument("--batch", type=int, default=32, help="samples a rank")
    parser.add_argument("--bucket-mib", type=int, default=4)
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)
    comm = pycoll.init()
    if comm.rank == 0:
        count = options.depth * options.width * (options.width + 1)
        print(f"{comm.size} ranks, {count:,} parameters, AdamW")
        print(f"{'':34}{'state MiB':>10}{'memory MiB':>12}{'ms a step':>11}{'of them step()':>16}")
    for name, wrap in CONTESTANTS.items():
        figures = torch.tensor(measure(comm, wrap, options), dtype=torch.float64)
        comm.allreduce(figures, "max")
        if comm.rank == 0:
            state, memory, step, outside = figures.tolist()
            print(f"{name:34}{state:10.1f}{memory:12.0f}{step:11.1f}{outside:16.1f}", flush=True)
    comm.close()


if __name__ == "__main__":
    main()
