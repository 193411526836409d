"""One worker of four computes four times slower: what does that cost, synchronous, bounded and asynchronous?

    python examples/parameter_server_digits.py --plot          # ranks are threads
    mpirun -n 5 python examples/parameter_server_digits.py --plot

The last rank is the server, the others train a small network on scikit-learn's handwritten digits. A batch's
computation is a sleep and the network's own, so that two cores are enough for all. Every mode gets the same time.
"""

import argparse
import copy
import time
from pathlib import Path

import look
import numpy as np
import torch
from digits import load
from torch.nn.functional import cross_entropy
from tqdm import tqdm

import pycoll
from pycoll import loopback
from pycoll.server import bounded

BINS = 4096  # of the histogram of staleness


def train(comm, arguments, data, template, mode, name, seconds):
    """On each rank: a dictionary; `seconds` is None for mode sync, which takes as long as its steps take."""
    server, workers = comm.size - 1, list(range(comm.size - 1))
    model = copy.deepcopy(template)
    # A push of all is one update of sync, and one of each worker in the other modes.
    lr = arguments.lr if mode == "sync" else arguments.lr / len(workers)
    wrapped = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    curve, steps = [], 0
    with pycoll.PSOptimizer(
        wrapped, model.named_parameters(), comm, servers=[server], workers=workers, mode=mode
    ) as optimizer:
        comm.barrier()
        begin = time.perf_counter()
        if optimizer.is_worker:
            curve, steps = work(comm.rank, len(workers), arguments, data, model, optimizer, name, begin, seconds)
        else:
            optimizer.serve()
    totals = np.array([steps * arguments.batch, optimizer.stats().get("server", {}).get("received_bytes", 0)], float)
    staleness = np.zeros(BINS)
    for lead, count in optimizer.stats().get("server", {}).get("staleness", {}).items():
        staleness[min(lead, BINS - 1)] += count
    comm.allreduce(totals)
    comm.allreduce(staleness)
    return {"name": name, "curve": curve, "samples": totals[0], "bytes": totals[1], "staleness": staleness}


def work(number, workers, arguments, data, model, optimizer, name, begin, seconds):
    """A worker's loop: accuracies by time, of the first worker only, and the number of steps."""
    x_train, y_train, x_test, y_test = data
    x, y = x_train[number::workers], y_train[number::workers]
    draw = torch.Generator().manual_seed(arguments.seed + number)
    pause = arguments.compute / 1000 * (arguments.slow if number == workers - 1 else 1)
    slowest = arguments.compute / 1000 * arguments.slow
    most = int(arguments.seconds / slowest) if seconds is None else 1 << 62
    curve, steps, shown = [], 0, 0
    with tqdm(
        total=round(seconds or arguments.seconds, 1),
        desc=f"{name:20}",
        ncols=88,
        bar_format="{l_bar}{bar}| {n:.1f} of {total:.1f} s",
        disable=number != 0,
    ) as bar:
        while steps < most and (seconds is None or time.perf_counter() - begin < seconds):
            batch = torch.randint(0, len(x), (arguments.batch,), generator=draw)
            optimizer.zero_grad()
            cross_entropy(model(x[batch]), y[batch]).backward()
            time.sleep(pause)
            optimizer.step()
            steps += 1
            now = time.perf_counter() - begin
            if number == 0 and now - shown > 0.15:
                bar.update(min(now, bar.total) - bar.n)
                shown = now
                curve.append((now, accuracy(model, x_test, y_test)))
        if number == 0:
            bar.update(bar.total - bar.n)
            curve.append((time.perf_counter() - begin, accuracy(model, x_test, y_test)))
    return curve, steps


def accuracy(model, x, y):
    with torch.no_grad():
        return (model(x).argmax(1) == y).double().mean().item()


def run(comm, arguments, data, template):
    """Each mode in turn. Rank 0's are the results that are shown."""
    results, seconds = [], None
    for name, mode in (("sync", "sync"), (f"bounded({arguments.bound})", bounded(arguments.bound)), ("async", "async")):
        results.append(train(comm, arguments, data, template, mode, name, seconds))
        if seconds is None:
            took = np.array([results[0]["curve"][-1][0] if comm.rank == 0 else 0.0])
            comm.broadcast(took, 0)
            seconds = float(took[0])
    return results


def table(results):
    print(
        f"\n{'mode':14}{'seconds':>9}{'samples/s':>12}{'of sync':>10}{'accuracy':>11}{'staleness':>18}{'MB pushed':>11}"
    )
    base = results[0]["samples"] / results[0]["curve"][-1][0]
    for result in results:
        seconds, reached = result["curve"][-1]
        rate = result["samples"] / seconds
        counts = result["staleness"]
        mean, largest = np.average(np.arange(BINS), weights=counts), int(np.flatnonzero(counts)[-1])
        print(
            f"{result['name']:14}{seconds:9.1f}{rate:12,.0f}{rate / base:9.2f}x{reached:11.2%}"
            f"{f'{mean:.1f}, at most {largest}':>18}{result['bytes'] / 1e6:11.1f}"
        )
    print("\nstaleness: pushes that a worker was ahead of the slowest when it read the parameters")


def plot(results, slow, path):
    plt = look.pyplot()
    colors = [look.ORANGE, look.GREY, look.BLUE]
    figure, (left, middle, right) = plt.subplots(
        1, 3, figsize=(12, 4.4), width_ratios=[1.7, 1, 1.2], layout="constrained"
    )
    for result, color in zip(results, colors, strict=True):
        seconds, values = np.array(result["curve"]).T
        left.plot(seconds, 100 * values, color=color, lw=1.8, label=f"{result['name']}, {values[-1]:.1%}")
        counts = result["staleness"] / result["staleness"].sum()
        last = np.flatnonzero(counts)[-1] + 1
        right.step(
            np.arange(last + 1), np.append(counts[:last][::-1].cumsum()[::-1], 0), color=color, where="post", lw=1.8
        )
    left.set_ylim(bottom=80, top=100)
    left.set_xlabel("seconds")
    left.set_ylabel("test accuracy, %")
    left.legend(frameon=False, loc="lower right", title="mode, accuracy at the end", alignment="left")
    left.set_title(f"One worker of four is {slow:g} times slower", loc="left", fontweight="bold")
    rates = [result["samples"] / result["curve"][-1][0] for result in results]
    bars = middle.bar([result["name"] for result in results], rates, color=colors, width=0.6)
    middle.bar_label(bars, [f"{rate / rates[0]:.2f}×" for rate in rates], padding=2)
    middle.grid(axis="x", visible=False)
    middle.set_title("Samples a second", loc="left", fontweight="bold")
    right.set_xlabel("pushes ahead of the slowest")
    right.set_ylabel("share of reads at least so far ahead")
    right.set_title("Staleness", loc="left", fontweight="bold")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    print(f"plot: {path}")


def parse():
    parser = argparse.ArgumentParser(description="A parameter server with one slow worker: three modes compared.")
    add = parser.add_argument
    add("--seconds", type=float, default=8, help="of each mode (8)")
    add("--workers", type=int, default=4, help="of threads; under mpirun all ranks but the last are workers (4)")
    add("--compute", type=float, default=20, help="milliseconds that a batch sleeps (20)")
    add("--slow", type=float, default=4, help="how many times longer the last worker's do (4)")
    add("--bound", type=int, default=8, help="staleness of mode bounded (8)")
    add("--batch", type=int, default=32, help="samples of a worker's step (32)")
    add("--lr", type=float, default=0.1)
    add("--seed", type=int, default=0)
    add("--plot", nargs="?", const="out/parameter_server.png", metavar="FILE", help="(out/parameter_server.png)")
    return parser.parse_args()


def main():
    arguments = parse()
    torch.set_num_threads(1)  # ranks share the cores
    data = load(arguments.seed, torch.float32)
    torch.manual_seed(arguments.seed)
    template = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(64, 128), torch.nn.GELU(), torch.nn.Linear(128, 10)
    )
    comm = pycoll.init()
    if comm.size == 1:
        results = loopback.run(arguments.workers + 1, lambda comm: run(comm, arguments, data, template), timeout=60)[0]
    else:
        results = run(comm, arguments, data, template)
    if comm.rank == 0:
        table(results)
        if arguments.plot is not None:
            plot(results, arguments.slow, Path(arguments.plot))


if __name__ == "__main__":
    main()
