"""Decentralised averaging and training: every rank talks to a few neighbours, and there is no centre.

    gossip = pycoll.gossip.Gossip(comm, pycoll.gossip.Ring())          # arrays
    optimizer = pycoll.gossip.GossipOptimizer(optimizer, model.named_parameters(), topology=pycoll.gossip.Ring())

docs/gossip.md says which topology pays where, and what compression does to consensus.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .mixing import Gossip
from .topology import Exponential, OnePeerExponential, RandomMatching, RandomPeer, Ring, Topology, Torus

if TYPE_CHECKING:
    from .optim import GossipOptimizer


def __getattr__(name: str) -> Any:
    # torch is needed, and imported, only by those who use the optimizer.
    if name == "GossipOptimizer":
        from .optim import GossipOptimizer

        return GossipOptimizer
    raise AttributeError(f"module 'pycoll.gossip' has no attribute {name!r}")


__all__ = [
    "Exponential",
    "Gossip",
    "GossipOptimizer",
    "OnePeerExponential",
    "RandomMatching",
    "RandomPeer",
    "Ring",
    "Topology",
    "Torus",
]
