"""Trains a convolutional network on scikit-learn's handwritten digits over ranks.

    mpirun -n 2 python examples/train_digits.py --plot
    mpirun -n 2 python examples/train_digits.py --codec none,int8,topk:0.01 --plot

Without --codec it shows that one process on the joined batch ends with the same. With --codec it trains once with each,
from the same seed, and shows what compression saves and what it costs.
"""

import argparse
from pathlib import Path

import compare_codecs
import look
import numpy as np
import torch
from digits import load, train

import pycoll


def report(many, one, ranks, dtype):
    print(f"\n{'':24}{f'{ranks} ranks':>14}{'1 process':>14}{'difference':>14}")
    losses = many.losses[-1], one.losses[-1]
    print(f"{'loss, last step':24}{losses[0]:14.6f}{losses[1]:14.6f}{abs(losses[0] - losses[1]):14.1e}")
    accuracies = many.accuracies[-1], one.accuracies[-1]
    print(f"{'test accuracy':24}{accuracies[0]:14.2%}{accuracies[1]:14.2%}{abs(accuracies[0] - accuracies[1]):14.2%}")
    print(f"{'milliseconds a step':24}{1e3 * np.median(many.seconds):14.2f}{1e3 * np.median(one.seconds):14.2f}")
    print(f"{'wire bytes a step':24}{many.wire_bytes:14,.0f}{0:14}")
    largest = (many.parameters[-1] - one.parameters[-1]).abs().max().item()
    first = (many.parameters[0] - one.parameters[0]).abs().max().item()
    print(f"\nlargest parameter difference: {largest:.1e} after the last epoch, {first:.1e} after the first")
    if ranks == 1:
        print("one rank runs the same operations in the same order")
    else:
        name = str(dtype).removeprefix("torch.")
        bits = 1 - int(np.log2(torch.finfo(dtype).eps))
        print(
            f"The reason: {name} addition rounds to {bits} bits, so the order of summation shows. One process sums\n"
            "the batch in one order; ranks sum their shares, then add them up. The first step differs in the last bit\n"
            "or so, and training carries that on. In float64 (--dtype) the difference shrinks as the rounding does."
        )


def plot(many, one, ranks, steps, path):
    plt = look.pyplot()
    figure, (top, middle, bottom) = plt.subplots(
        3, 1, figsize=(9, 8.6), sharex=True, height_ratios=[3, 1.6, 1.8], layout="constrained"
    )
    step = np.arange(1, len(one.losses) + 1) / steps
    epoch = np.arange(1, len(one.accuracies) + 1)

    top.plot(step, one.losses, color=look.ORANGE, lw=4.5, alpha=0.55, label="1 process, joined batch")
    top.plot(step, many.losses, color=look.BLUE, lw=1.1, label=f"{ranks} ranks, pycoll.DistributedOptimizer")
    top.set_yscale("log")
    top.set_ylabel("training loss")
    top.legend(frameon=False, loc="upper right")
    top.set_title(
        "Handwritten digits: training over ranks is training in one process", loc="left", fontweight="bold", pad=12
    )

    gap = np.abs(np.array(many.losses) - one.losses)
    drift = [(a - b).abs().max().item() for a, b in zip(many.parameters, one.parameters, strict=True)]
    middle.plot(step, np.where(gap > 0, gap, np.nan), ".", ms=2.5, color=look.GREY, label="loss, every step")
    middle.plot(
        epoch,
        np.where(np.array(drift) > 0, drift, np.nan),
        "o-",
        ms=4,
        color=look.INK,
        label="largest of the parameters",
    )
    middle.set_yscale("log")
    middle.set_ylabel("|difference|")
    middle.legend(frameon=False, loc="lower right", ncols=2)

    bottom.plot(epoch, 100 * np.array(one.accuracies), color=look.ORANGE, lw=4.5, alpha=0.55)
    bottom.plot(epoch, 100 * np.array(many.accuracies), "o-", color=look.BLUE, lw=1.1, ms=4)
    bottom.annotate(
        f"{many.accuracies[-1]:.2%}",
        (epoch[-1], 100 * many.accuracies[-1]),
        xytext=(0, -18),
        textcoords="offset points",
        ha="right",
        color=look.BLUE,
        fontweight="bold",
    )
    bottom.set_ylabel("test accuracy, %")
    bottom.set_xlabel("epoch")
    bottom.set_xlim(0, epoch[-1] * 1.01)
    figure.align_ylabels()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    print(f"plot: {path}")


def parse():
    parser = argparse.ArgumentParser(description="Trains a digit classifier over ranks, and compares.")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch", type=int, default=64, help="samples a step, of all ranks together (64)")
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--codec", metavar="NAMES", help="none, bf16, int8, int4, sign, topk:0.01, powersgd:4, ...")
    parser.add_argument(
        "--plot", nargs="?", const="", metavar="FILE", help="save a plot (out/demo.png, out/codecs.png)"
    )
    arguments = parser.parse_args()
    if arguments.epochs < 1 or arguments.batch < 1 or arguments.lr <= 0:
        parser.error("--epochs and --batch must be at least 1, --lr above 0")
    return arguments


def main():
    arguments = parse()
    torch.set_num_threads(1)  # ranks share the cores
    dtype = getattr(torch, arguments.dtype)
    data = load(arguments.seed, dtype)
    with pycoll.init() as comm:
        rank, ranks = comm.rank, comm.size
        if rank == 0:
            print(f"{ranks} ranks, transport {comm.transport}; {len(data[0])} training images, batch {arguments.batch}")
        if arguments.codec:
            compare_codecs.run(arguments, data, comm)
            return
        many = train(arguments, data, comm)
    if rank == 0:
        one = train(arguments, data)
        report(many, one, ranks, dtype)
        if arguments.plot is not None:
            plot(many, one, ranks, -(-len(data[0]) // arguments.batch), Path(arguments.plot or "out/demo.png"))


if __name__ == "__main__":
    main()
