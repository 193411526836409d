"""Decentralised training on scikit-learn's handwritten digits: ranks talk to neighbours, and there is no centre.

    python examples/gossip_digits.py --plot                      # 8 ranks, threads of this process
    pycoll run -n 4 examples/gossip_digits.py --plot             # 4 processes

First it measures how fast exchanges alone bring ranks' numbers together, beside what the spectral gap says. Then it
trains by all-reduce, by gossip over several topologies, and by compressed gossip (CHOCO) that sends 1 % of the numbers.
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
from pycoll.gossip import (
    Exponential,
    Gossip,
    GossipOptimizer,
    OnePeerExponential,
    RandomMatching,
    RandomPeer,
    Ring,
    Torus,
)

RING, TORUS, EXPONENTIAL, MATCHING, PEER = "#1f6fb4", "#2a9d8f", "#f28e2b", "#c8553d", "#7b5ea7"
OF_TOPOLOGIES = [RING, TORUS, EXPONENTIAL, MATCHING, PEER]
OF_METHODS = [look.GREY, RING, EXPONENTIAL, look.INK, PEER, TORUS]
MIXED = 40  # exchanges


def mix(comm):
    """Of each topology its name, its spectral gap, and the distance from consensus before and after each exchange."""
    found = []
    for topology in (Ring(), Torus(), Exponential(), RandomMatching(), RandomPeer()):
        gossip = Gossip(comm, topology, push_sum=not topology.balanced)
        x = np.random.default_rng(comm.rank).standard_normal(1000)
        distances = [gossip.consensus_distance(x)]
        for _ in range(MIXED):
            distances.append(gossip.consensus_distance(gossip.mix(x)))
        found.append((topology, distances))
        gossip.close()
    return found


def methods(comm):
    """Names, and what wraps an optimizer."""
    gossip = partial(GossipOptimizer, comm=comm)
    return {
        "all-reduce": partial(pycoll.DistributedOptimizer, comm=comm),
        "ring": partial(gossip, topology=Ring()),
        "exponential": partial(gossip, topology=Exponential()),
        "one peer a step, overlapped": partial(gossip, topology=OnePeerExponential(), overlap=True),
        "random peer, push-sum": partial(gossip, topology=RandomPeer(), push_sum=True),
        "CHOCO on a torus, top 1 %": partial(gossip, topology=Torus(), codec=pycoll.TopK(0.01), gamma=0.05),
    }


def everything(comm, data, steps):
    runs = [train(comm, data, name, wrap, steps=steps) for name, wrap in methods(comm).items()]
    return comm.size, mix(comm), runs


def report(size, mixed, runs):
    print(f"\n{size} ranks; in the long run the distance from consensus falls in an exchange by")
    print(f"{'':28}{'predicted':>10}{'measured':>10}")
    for topology, distances in mixed:
        reached = [d for d in distances if d > 1e-12 * distances[0]]  # below that it is rounding
        begin, end = len(reached) // 4, len(reached) - 1
        measured = 1 - (reached[end] / reached[begin]) ** (1 / max(1, end - begin))
        print(f"{type(topology).__name__:28}{topology.spectral_gap(size):10.1%}{measured:10.1%}")
    table(runs)
    print("wire bytes of gossip: of the exchanges, without the one average at the end")


def plot(size, mixed, runs, path):
    plt = look.pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 4.8), layout="constrained")
    exchanges = np.arange(MIXED + 1)
    for (topology, distances), color in zip(mixed, OF_TOPOLOGIES, strict=True):
        gap = topology.spectral_gap(size)
        left.plot(exchanges, distances, color=color, lw=1.8, label=f"{type(topology).__name__}, gap {gap:.2f}")
        left.plot(exchanges, distances[0] * (1 - gap) ** exchanges, ":", color=color, lw=1.6)
    left.set_yscale("log")
    left.set_ylim(max(1e-14, min(min(d) for _, d in mixed)) / 2)
    left.set_xlabel("exchanges")
    left.set_ylabel("distance from consensus")
    left.plot([], [], ":", color=look.INK, label="what the gap alone says")
    left.set_title(f"{size} ranks, exchanges alone", loc="left", fontweight="bold")
    left.legend(frameon=False, loc="lower left", fontsize=9)
    for run, color in zip(runs, OF_METHODS, strict=True):
        loss = smooth(run.losses)
        sent = np.arange(1, len(loss) + 1) * run.wire_bytes / len(loss) / 1e6
        right.plot(sent, loss, color=color, lw=1.8, label=f"{run.label}, {run.accuracy:.1%}")
    right.set_xscale("log")
    right.set_yscale("log")
    right.set_xlabel("megabytes sent by a rank")
    right.set_ylabel("training loss, mean over ranks")
    right.set_title("Handwritten digits: loss against bytes", loc="left", fontweight="bold")
    right.legend(
        frameon=False, title="method, test accuracy", alignment="left", loc="upper left", bbox_to_anchor=(1, 1)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    print(f"plot: {path}")


def main():
    parser = argparse.ArgumentParser(description="Decentralised training of a digit classifier.")
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--ranks", type=int, default=8, help="threads, where no launcher started ranks (8)")
    parser.add_argument("--plot", nargs="?", const="out/gossip.png", metavar="FILE", help="save a plot")
    arguments = parser.parse_args()
    data = load(0, torch.float32)
    result = over_ranks(partial(everything, data=data, steps=arguments.steps), arguments.ranks)
    if result is None:
        return
    report(*result)
    if arguments.plot:
        plot(*result, Path(arguments.plot))


if __name__ == "__main__":
    main()
