"""Federated learning on scikit-learn's handwritten digits: 100 clients, most of which have seen few of the ten digits.

    pycoll run -n 3 examples/federated_digits.py --plot

Trains the same network with several methods: plain FedAvg and what helps it against uneven data, secure aggregation
while 30 % of the clients drop out, and differential privacy, whose price is high where clients are few. Rank 0 is the
server, the others host the clients; one rank is both. Secure aggregation needs the package cryptography, the account of
privacy dp-accounting; both are in requirements/demo.txt, and in `pip install 'pycoll[federated]'`.
"""

import argparse
import importlib.util
import sys
from dataclasses import dataclass, field
from pathlib import Path

import look
import numpy as np
import torch
from digits import load
from torch import nn
from torch.nn import functional
from tqdm import tqdm

import pycoll
from pycoll import federated

DELTA = 1e-3  # of (epsilon, delta): below 1 / clients


@dataclass
class Run:
    """A method, and how it went."""

    name: str
    method: federated.Method
    proximal: float = 0.0
    accuracies: list[float] = field(default_factory=list)  # on the test set, after each round
    reports: list[federated.Report] = field(default_factory=list)
    epsilon: float | None = None

    @property
    def accuracy(self):
        """Mean of the last ten rounds: with clients this uneven, single ones differ by a few points."""
        return float(np.mean(self.accuracies[-10:]))


def runs(asked, clients):
    few, adam = federated.Uniform(asked), federated.FedAdam(lr=0.02)
    dropout, secure = federated.RandomDropout(0.3), federated.Secure(survivors=0.5, range=256.0)
    private = federated.Central(clip=0.5, noise=0.8)
    return [
        Run("FedAvg", federated.Method(sample=few)),
        Run("FedProx", federated.Method(sample=few), proximal=1.0),
        Run("FedAvgM", federated.Method(sample=few, optimizer=federated.FedAvgM(lr=0.5))),
        Run("FedAdam", federated.Method(sample=few, optimizer=adam)),
        Run("FedAdam, int8", federated.Method(sample=few, optimizer=adam, codec=pycoll.Int8())),
        Run("FedAdam, secure", federated.Method(sample=few, optimizer=adam, secure=secure, dropout=dropout)),
        Run(
            "FedAdam, private",
            federated.Method(
                sample=federated.Poisson(asked / clients), optimizer=federated.FedAdam(lr=0.01), privacy=private
            ),
        ),
    ]


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 10))


def train(run, arguments, data, parts, comm):
    x_train, y_train, x_test, y_test = data
    clients = federated.TorchClients(
        network(arguments.seed),
        functional.cross_entropy,
        [(x_train[part], y_train[part]) for part in parts],
        epochs=2,
        proximal=run.proximal,
    )
    federation = federated.Federation(comm, clients, run.method)
    with tqdm(total=arguments.rounds, desc=f"{run.name:16}", ncols=88, unit=" rounds", disable=comm.rank != 0) as bar:

        def look_at(report):
            clients.assign(federation.parameters)
            with torch.no_grad():
                run.accuracies.append((clients.model(x_test).argmax(1) == y_test).double().mean().item())
            bar.set_postfix_str(f"accuracy {run.accuracies[-1]:.1%}", refresh=False)
            bar.update()

        run.reports = federation.run(arguments.rounds, look_at)
    if federation.is_server and run.method.privacy:
        run.epsilon = federation.epsilon(DELTA)


def table(runs):
    print(f"\n{'':18}{'accuracy':>9}{'best':>8}{'reported':>10}{'void':>6}{'kB a client':>13}{'epsilon':>9}")
    for run in runs:
        reported = sum(len(report.reported) for report in run.reports)
        bytes = sum(report.received for report in run.reports) / max(reported, 1) / 1e3
        void = sum(report.void is not None for report in run.reports)
        epsilon = "" if run.epsilon is None else f"{run.epsilon:.1f}"
        rounds = len(run.reports)
        print(
            f"{run.name:18}{run.accuracy:9.2%}{max(run.accuracies):8.2%}{reported / rounds:10.1f}{void:6}{bytes:13.1f}"
            f"{epsilon:>9}"
        )
    print("accuracy: mean of the last ten rounds; kB: received from a client that reported (0 in one process)")


def plot(runs, parts, labels, path):
    plt = look.pyplot()
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(9, 7.6), height_ratios=[1.3, 3], layout="constrained")
    digits = np.array([np.bincount(labels[part], minlength=10) for part in parts])
    digits = digits[np.argsort(digits.sum(axis=1))[::-1]]
    below = np.zeros(len(parts))
    for digit, colour in enumerate(plt.cm.tab10.colors):
        top.bar(range(len(parts)), digits[:, digit], 0.8, below, color=colour, label=str(digit))
        below += digits[:, digit]
    top.set_xlim(-1, len(parts))
    top.set_xlabel("client, by number of samples")
    top.set_ylabel("samples")
    top.grid(False, axis="x")
    top.legend(frameon=False, ncols=10, loc="upper right", columnspacing=0.9, handlelength=0.8, title="of which digit")
    top.set_title(
        f"Digits of {len(parts)} clients, and what they learn together", loc="left", fontweight="bold", pad=12
    )

    for i, run in enumerate(runs):
        rounds = np.arange(1, len(run.accuracies) + 1)
        smooth = [100 * np.mean(run.accuracies[max(0, r - 5) : r]) for r in rounds]
        name = f"{run.name}, ε = {run.epsilon:.1f}" if run.epsilon is not None else run.name
        bottom.plot(rounds, smooth, lw=1.6, color=COLOURS[i], ls=STYLES[i], label=f"{name}: {run.accuracy:.1%}")
    bottom.set_ylim(max(0, 100 * min(run.accuracies[4] for run in runs if len(run.accuracies) > 4) - 5), 100)
    bottom.set_xlim(0, len(runs[0].accuracies))
    bottom.set_xlabel("round")
    bottom.set_ylabel("test accuracy, %, mean of five rounds")
    bottom.legend(frameon=False, loc="lower right")
    figure.align_ylabels()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    print(f"plot: {path}")


COLOURS = [look.GREY, look.GREY, look.ORANGE, look.BLUE, look.BLUE, "#59a14f", "#b07aa1"]
STYLES = ["-", "--", "-", "-", ":", "-", "-"]


def parse():
    parser = argparse.ArgumentParser(description="Federated learning of digits, with several methods.")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--asked", type=int, default=20, help="clients a round (20)")
    parser.add_argument(
        "--alpha", type=float, default=0.1, help="of the Dirichlet partition: less is more uneven (0.1)"
    )
    parser.add_argument("--only", metavar="NAME", help="one method only, as the table names it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", nargs="?", const="out/federated.png", type=Path, metavar="FILE", help="save a plot")
    arguments = parser.parse_args()
    if arguments.rounds < 1 or not 1 <= arguments.asked <= arguments.clients:
        parser.error("--rounds must be at least 1, --asked from 1 to --clients")
    return arguments


def main():
    arguments = parse()
    torch.set_num_threads(1)  # ranks share the cores
    data = load(arguments.seed, torch.float32)
    labels = data[1].numpy()
    parts = federated.partition.dirichlet(labels, arguments.clients, arguments.alpha, arguments.seed)
    chosen = [run for run in runs(arguments.asked, arguments.clients) if arguments.only in (None, run.name)]
    if not chosen:
        sys.exit(f"no method is named {arguments.only!r}")
    needed = {"cryptography": any(run.method.secure for run in chosen)}
    needed["dp_accounting"] = any(run.method.privacy for run in chosen)
    missing = [name for name, is_needed in needed.items() if is_needed and importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(f"{' and '.join(missing)} missing: pip install 'pycoll[federated]', or --only a method without")
    with pycoll.init() as comm:
        for run in chosen:
            train(run, arguments, data, parts, comm)
        if comm.rank == 0:
            table(chosen)
            if arguments.plot:
                plot(chosen, parts, labels, arguments.plot)


if __name__ == "__main__":
    main()
