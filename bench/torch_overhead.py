"""What one small all_reduce through torch.distributed costs, over pycoll and over Gloo, in one run.

    torchrun --nproc-per-node=2 bench/torch_overhead.py

Rounds of the contestants in turn; the slowest rank's microseconds a call, p50 and p99 over the rounds.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
import torch.distributed as dist


def microseconds(call, calls: int) -> float:
    begin = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - begin) / calls * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--elements", type=int, default=1, help="of 8 bytes")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--calls", type=int, default=200, help="a round")
    options = parser.parse_args()
    torch.set_num_threads(1)
    dist.init_process_group("pycoll")
    gloo = dist.new_group(backend="gloo")
    world = dist.group.WORLD
    x = torch.ones(options.elements, dtype=torch.float64)
    contestants = {
        "pycoll, dist.all_reduce": lambda: dist.all_reduce(x),
        "pycoll, async_op and wait": lambda: dist.all_reduce(x, async_op=True).wait(),
        "pycoll, its own allreduce": lambda: world.communicator.allreduce(x),
        "gloo, dist.all_reduce": lambda: dist.all_reduce(x, group=gloo),
    }
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(options.rounds + 3):
        for name, call in contestants.items():
            x.fill_(0)
            dist.barrier()
            calls = options.calls if "gloo" not in name else max(options.calls // 10, 1)
            spent = torch.tensor([microseconds(call, calls)], dtype=torch.float64)
            dist.all_reduce(spent, dist.ReduceOp.MAX)
            if turn >= 3:  # after warming up
                times[name].append(spent.item())
    if dist.get_rank() == 0:
        print(f"{dist.get_world_size()} ranks, {8 * options.elements} bytes, microseconds a call")
        for name, spent in times.items():
            print(f"{name:26} p50 {np.percentile(spent, 50):8.2f}   p99 {np.percentile(spent, 99):8.2f}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
