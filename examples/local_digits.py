"""Local methods on scikit-learn's handwritten digits: ranks train alone for many steps, then agree.

    python examples/local_digits.py --plot                       # 4 ranks, threads of this process
    pycoll run -n 4 examples/local_digits.py --plot              # 4 processes

Trains by all-reduce, local SGD and DiLoCo, dense, in 8 or in 4 bits, and streamed by fragments; shows what each sends
and how good its model is.
"""

import argparse
from functools import partial
from pathlib import Path

import look
import numpy as np
import torch
from digits import load
from replicas import over_ranks, smooth, table, train

import pycoll

COLORS = ["#8a97a3", "#2a9d8f", "#1f6fb4", "#f28e2b", "#c8553d", "#7b5ea7"]


def methods(comm, every):
    """Names, and what wraps an optimizer."""
    diloco = partial(pycoll.DiLoCo, comm=comm, every=every)
    return {
        "all-reduce": partial(pycoll.DistributedOptimizer, comm=comm),
        "local SGD, every 8 steps": partial(pycoll.LocalSGD, comm=comm, every=8),
        f"DiLoCo, every {every}": diloco,
        "DiLoCo, int8": partial(diloco, codec=pycoll.Int8()),
        "DiLoCo, int4": partial(diloco, codec=pycoll.Int4()),
        "streamed in 3, int4": partial(diloco, codec=pycoll.Int4(), fragments=3, delay=max(1, every // 10)),
    }


def everything(comm, data, steps, every):
    inner = partial(torch.optim.AdamW, lr=3e-3)
    runs = [train(comm, data, name, wrap, steps=steps, inner=inner) for name, wrap in methods(comm, every).items()]
    return comm.size, runs


def plot(size, runs, path):
    plt = look.pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(11.5, 4.6), layout="constrained")
    for run, color in zip(runs, COLORS, strict=True):
        left.plot(np.arange(1, len(run.losses) + 1), smooth(run.losses), color=color, lw=1.6, label=run.label)
    left.set_yscale("log")
    left.set_xlabel("steps")
    left.set_ylabel("training loss, mean over ranks")
    left.set_title(f"AdamW on digits, {size} ranks", loc="left", fontweight="bold")
    left.legend(frameon=False, loc="lower left", fontsize=9)
    sent = [run.wire_bytes / 1e6 for run in runs]
    places = np.arange(len(runs))[::-1]
    right.barh(places, sent, color=COLORS, height=0.6)
    for place, run, megabytes in zip(places, runs, sent, strict=True):
        fewer = sent[0] / megabytes
        text = f"{run.accuracy:.1%}" + (f", {fewer:.0f}× fewer bytes" if run is not runs[0] else " test accuracy")
        right.annotate(text, (megabytes, place), xytext=(6, 0), textcoords="offset points", va="center")
    right.set_yticks(places, [run.label for run in runs])
    right.set_xscale("log")
    right.set_xlim(min(sent) / 2, max(sent) * 30)
    right.set_xlabel("megabytes sent by a rank")
    right.set_title("What it takes to agree", loc="left", fontweight="bold")
    right.grid(axis="y", visible=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    print(f"plot: {path}")


def main():
    parser = argparse.ArgumentParser(description="Local methods on a digit classifier.")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--every", type=int, default=25, help="steps between DiLoCo's agreements (25)")
    parser.add_argument("--ranks", type=int, default=4, help="threads, where no launcher started ranks (4)")
    parser.add_argument("--plot", nargs="?", const="out/local.png", metavar="FILE", help="save a plot")
    arguments = parser.parse_args()
    data = load(0, torch.float32)
    result = over_ranks(partial(everything, data=data, steps=arguments.steps, every=arguments.every), arguments.ranks)
    if result is None:
        return
    table(result[1])
    if arguments.plot:
        plot(*result, Path(arguments.plot))


if __name__ == "__main__":
    main()
