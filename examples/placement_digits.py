"""Ranks that are not equally fast: who gets which samples, so that nobody waits and none is lost.

    python examples/placement_digits.py --plot                # 4 ranks, threads of this process
    pycoll run -n 4 examples/placement_digits.py --plot       # 4 processes

Trains on scikit-learn's handwritten digits where a sample costs the last rank three times as long (a sleep): batches in
equal shares, then by the speeds that are measured. The second training is stopped in the middle of its last epoch and
goes on with one rank fewer. Last, the files of Python's own library are shared out by number, by name and by size.
"""

import argparse
import itertools
import sysconfig
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import look
import numpy as np
import torch
from digits import load
from replicas import build, over_ranks
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset
from tqdm import tqdm

import pycoll
from pycoll import data


@dataclass
class Training:
    """What rank 0 knows of one training."""

    label: str
    shares: list[int]  # samples of a step, by rank
    busy: np.ndarray  # seconds of each rank's own computation
    seconds: float
    losses: list[float]  # of each step
    accuracy: float


def pause(comm, arguments, samples):
    """The time that so many samples take this rank."""
    time.sleep(samples * arguments.cost / 1000 * (arguments.slow if comm.rank == comm.size - 1 else 1))


def epoch(comm, arguments, loader, model, optimizer, bar, most=None):
    """Trains on the loader's next batches, `most` of them at the most: mean losses, seconds of computation, samples."""
    losses, seen, busy = [], Counter(), 0.0
    for x, y, number in itertools.islice(loader, most):
        begin = time.perf_counter()
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(x), y)
        pause(comm, arguments, len(y))
        busy += time.perf_counter() - begin
        scaled = data.scale(comm, len(y)) * loss
        scaled.backward()
        optimizer.step()
        losses.append(scaled.item())
        seen.update(number.tolist())
        bar.update()
    return comm.allreduce(np.array(losses), op="avg").tolist(), busy, seen


def train(comm, arguments, samples, label, speeds):
    """A Training, the model's state, and where in the last epoch it stopped: after half of its steps."""
    x, y, x_test, y_test = samples
    model = build(seed=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    optimizer = pycoll.DistributedOptimizer(optimizer, model.named_parameters(), comm)
    batches = data.Batches(len(x), arguments.batch, comm, weights=speeds)
    loader = DataLoader(TensorDataset(x, y, torch.arange(len(x))), batch_sampler=batches)
    losses, busy, half = [], 0.0, len(batches) // 2
    comm.barrier()
    begin = time.perf_counter()
    steps = (arguments.epochs - 1) * len(batches) + half
    with tqdm(total=steps, desc=f"{label:16}", ncols=88, unit=" steps", disable=comm.rank != 0) as bar:
        for number in range(arguments.epochs):
            most = half if number == arguments.epochs - 1 else None
            part, took, seen = epoch(comm, arguments, loader, model, optimizer, bar, most)
            losses += part
            busy += took
    seconds = time.perf_counter() - begin
    optimizer.close()
    shares = comm.allgather(np.array([len(next(iter(data.Batches(len(x), arguments.batch, comm, weights=speeds))))]))
    with torch.no_grad():
        accuracy = (model(x_test).argmax(1) == y_test).double().mean().item()
    everyone = comm.allgather(np.array([busy])).ravel()
    training = Training(label, shares.ravel().tolist(), everyone, seconds, losses, accuracy)
    return training, model, batches.state_dict(half), seen


def go_on(comm, arguments, samples, model, state, seen):
    """The rest of the epoch on all ranks but the last; how often each sample was seen in the whole epoch."""
    x, y = samples[:2]
    fewer = comm.split(0 if comm.rank < comm.size - 1 else None)
    if fewer is not None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        optimizer = pycoll.DistributedOptimizer(optimizer, model.named_parameters(), fewer)
        batches = data.Batches(len(x), arguments.batch, fewer)
        batches.load_state_dict(state)
        loader = DataLoader(TensorDataset(x, y, torch.arange(len(x))), batch_sampler=batches)
        with tqdm(desc="one rank fewer  ", ncols=88, unit=" steps", disable=fewer.rank != 0) as bar:
            seen += epoch(fewer, arguments, loader, model, optimizer, bar)[2]
        optimizer.close()
    times = np.zeros(len(x), np.int64)
    times[list(seen)] = list(seen.values())
    return comm.allreduce(times)


def shards(parts):
    """Bytes of Python's library on each of `parts` ranks, by each of three ways to share its files out."""
    library = Path(sysconfig.get_path("stdlib"))
    files = sorted(path for path in library.rglob("*.py") if "site-packages" not in path.parts)
    sizes = [file.stat().st_size for file in files]
    names = [str(file.relative_to(library)) for file in files]
    ways = {
        "by index": data.by_index(len(files), parts),
        "by hash": data.by_hash(names, parts),
        "by size": data.by_size(sizes, parts),
    }
    return {way: [sum(sizes[i] for i in shard) for shard in dealt] for way, dealt in ways.items()}


def everything(comm, arguments, samples):
    speeds = data.measured_speeds(comm, partial(pause, comm, arguments, 8))
    equal = train(comm, arguments, samples, "equal shares", None)[0]
    weighted, model, state, seen = train(comm, arguments, samples, "by speed", speeds)
    return equal, weighted, go_on(comm, arguments, samples, model, state, seen)


def report(equal, weighted, times, files):
    print(f"\n{'':16}{'samples a step':>20}{'seconds':>10}{'busy':>8}{'accuracy':>11}")
    for each in (equal, weighted):
        share = each.busy.mean() / each.seconds
        shares = " ".join(map(str, each.shares))
        print(f"{each.label:16}{shares:>20}{each.seconds:10.1f}{share:8.0%}{each.accuracy:11.2%}")
    apart = max(abs(a - b) for a, b in zip(equal.losses, weighted.losses, strict=True))
    print(f"the losses of their {len(equal.losses)} steps are at most {apart:.1e} apart: the batches are the same")
    once = np.count_nonzero(times == 1)
    print(f"stopped within an epoch and continued with one rank fewer: {once} of {len(times)} samples seen once in it")
    for way, parts in files.items():
        print(f"files {way}: the fullest rank has {max(parts) / np.mean(parts):.3f} times the mean")


def plot(equal, weighted, files, path):
    plt = look.pyplot()
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12.5, 4), layout="constrained")
    ranks = np.arange(len(equal.busy))
    for each, shift in ((equal, -0.2), (weighted, 0.2)):
        color = look.GREY if each is equal else look.BLUE
        left.bar(ranks + shift, each.seconds, 0.36, color="none", ec=color, lw=1)
        left.bar(ranks + shift, each.busy, 0.36, color=color, label=each.label)
        middle.plot(np.linspace(0, each.seconds, len(each.losses)), each.losses, color=color, lw=1.2, label=each.label)
    left.set_xticks(ranks, [f"rank {rank}" for rank in ranks])
    left.set_ylabel("seconds; filled: computing")
    left.set_title("Who computes, who waits", loc="left", fontweight="bold")
    left.grid(axis="x", visible=False)
    middle.set_yscale("log")
    middle.set_xlabel("seconds")
    middle.set_ylabel("training loss")
    middle.set_title("The same training", loc="left", fontweight="bold")
    middle.legend(frameon=False)
    for (way, parts), shift, color in zip(
        files.items(), (-0.27, 0, 0.27), (look.GREY, look.ORANGE, look.BLUE), strict=True
    ):
        right.bar(ranks + shift, np.array(parts) / 1e6, 0.25, color=color, label=way)
    right.set_xticks(ranks, [f"rank {rank}" for rank in ranks])
    right.set_ylabel("MB")
    right.set_ylim(top=1.3 * max(map(max, files.values())) / 1e6)
    right.legend(frameon=False, loc="upper left", ncols=3, fontsize=9, columnspacing=1, handlelength=1)
    right.set_title("Files of Python's library", loc="left", fontweight="bold")
    right.grid(axis="x", visible=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    print(f"plot: {path}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--ranks", type=int, default=4, help="threads, where no launcher started ranks (4)")
    add("--epochs", type=int, default=6)
    add("--batch", type=int, default=64, help="samples a step, of all ranks (64)")
    add("--cost", type=float, default=1, help="milliseconds that a sample takes (1)")
    add("--slow", type=float, default=3, help="how many times longer it takes the last rank (3)")
    add("--plot", nargs="?", type=Path, const=Path("out/placement.png"), metavar="FILE")
    arguments = parser.parse_args()
    if arguments.ranks < 2:
        parser.error("--ranks must be at least 2")
    samples = load(0, torch.float32)
    results = over_ranks(partial(everything, arguments=arguments, samples=samples), arguments.ranks)
    if results is None:
        return
    equal, weighted, times = results
    files = shards(len(equal.busy))
    report(equal, weighted, times, files)
    if arguments.plot:
        plot(equal, weighted, files, arguments.plot)


if __name__ == "__main__":
    main()
