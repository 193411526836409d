"""Gossip between processes; see test_gossip.py."""

from __future__ import annotations

import sys

import numpy as np
from cases import RANK, SIZE, case, comm, main

import pycoll
from pycoll.gossip import Exponential, Gossip, RandomPeer, Ring


def values(rank, count=10_000):
    return np.random.default_rng(rank).standard_normal(count)


MEAN = np.mean([values(rank) for rank in range(SIZE)], axis=0)


@case
def rates():
    for topology in (Ring(), Exponential()):
        gossip, x = Gossip(comm, topology), values(RANK)
        first = gossip.consensus_distance(x)
        for _ in range(12):
            gossip.mix(x)
        measured = 1 - (gossip.consensus_distance(x) / first) ** (1 / 12)
        assert abs(measured / gossip.spectral_gap - 1) < 0.2, (topology, measured, gossip.spectral_gap)
        assert np.abs(gossip.average(x) - MEAN).max() < 1e-14


@case
def push_sum():
    gossip, x = Gossip(comm, RandomPeer(), push_sum=True), values(RANK)
    for _ in range(40):
        gossip.mix(x)
    assert np.abs(x - MEAN).max() < 1e-5


@case
def compressed():
    gossip, x = Gossip(comm, Ring(), codec=pycoll.TopK(0.01)), values(RANK).astype(np.float32)
    first = gossip.consensus_distance(x)
    for _ in range(120):
        gossip.mix(x)
    assert gossip.consensus_distance(x) < first / 4


if __name__ == "__main__":
    main(sys.argv[1:])
