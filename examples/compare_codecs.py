"""The same training with one codec after another: a table, and loss against bytes and against time."""

from pathlib import Path

import look
import numpy as np
from digits import train

import pycoll

COLORS = ["#8a97a3", "#1f6fb4", "#2a9d8f", "#f28e2b", "#c8553d", "#7b5ea7", "#b5a642", "#22303c"]


def run(arguments, data, comm):
    """Trains with each of `arguments.codec`, a list of names divided by commas; rank 0 prints and draws."""
    names = arguments.codec.split(",")
    codecs = [pycoll.codec.parse(name) for name in names]
    histories = []
    for name, codec in zip(names, codecs, strict=True):
        history = train(arguments, data, comm, codec, label=name)
        # A step is done when the slowest rank is; bytes are of the rank that sends most.
        history.seconds = comm.allreduce(np.array(history.seconds), op="max").tolist()
        history.wire_bytes = float(comm.allreduce(np.array([history.wire_bytes]), op="max")[0])
        histories.append(history)
    if comm.rank != 0:
        return
    table(names, histories)
    if arguments.plot is not None:
        plot(names, histories, comm.size, Path(arguments.plot or "out/codecs.png"))


def table(names, histories):
    """One line a codec; the ratio is that of the wire bytes to those of the first."""
    widths = {"accuracy": 10, "loss": 10, "wire bytes a rank": 20, "ratio": 8, "seconds": 10, "slowest ms": 12}
    print(f"\n{'codec':16}" + "".join(f"{title:>{width}}" for title, width in widths.items()))
    for name, history in zip(names, histories, strict=True):
        sent = history.wire_bytes * len(history.seconds)
        ratio = histories[0].wire_bytes / history.wire_bytes if history.wire_bytes else 1
        print(
            f"{name:16}{history.accuracies[-1]:10.2%}{tail(history.losses):10.5f}{sent:20,.0f}{ratio:8.1f}"
            f"{sum(history.seconds):10.2f}{1e3 * max(history.seconds[1:]):12.2f}"
        )
    print("\nwire bytes, seconds: of all steps; loss: mean of the last tenth; slowest: step, the first left out")


def tail(losses):
    """Mean of the last tenth."""
    return float(np.mean(losses[-max(1, len(losses) // 10) :]))


def smooth(values, width=15):
    """Geometric running mean over the last `width` values."""
    logs = np.log(np.maximum(values, 1e-12))
    sums = np.cumsum(np.concatenate([[0.0], logs]))
    end = np.arange(1, len(logs) + 1)
    begin = np.maximum(end - width, 0)
    return np.exp((sums[end] - sums[begin]) / (end - begin))


def plot(names, histories, ranks, path):
    """Loss against what was sent, and against time."""
    plt = look.pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.8), sharey=True, layout="constrained")
    for i, (name, history) in enumerate(zip(names, histories, strict=True)):
        style = {"color": COLORS[i % len(COLORS)], "lw": 3.2 if i == 0 else 1.8, "alpha": 0.55 if i == 0 else 0.95}
        loss, steps = smooth(history.losses), np.arange(1, len(history.losses) + 1)
        label = f"{'dense float32' if name == 'none' else name}, {history.accuracies[-1]:.1%}"
        left.plot(steps * history.wire_bytes / 1e6, loss, label=label, **style)
        right.plot(np.cumsum(history.seconds), loss, label=label, **style)
    left.set_xscale("log")
    left.set_yscale("log")
    left.set_xlabel("megabytes sent by a rank")
    left.set_ylabel("training loss")
    right.set_xlabel("seconds")
    right.legend(frameon=False, title="codec, test accuracy", title_fontsize=10.5, alignment="left")
    left.set_title("Loss against bytes", loc="left", fontweight="bold")
    right.set_title(f"Loss against time, {ranks} ranks in shared memory", loc="left", fontweight="bold")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    print(f"plot: {path}")
