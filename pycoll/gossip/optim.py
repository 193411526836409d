"""Decentralised training: each rank steps alone, then averages its parameters with a few neighbours'."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch

from ..arguments import check_whole
from ..buckets import Named
from ..codec import Codec
from ..errors import InvalidArgument
from ..replica import Flat, ReplicaOptimizer
from .mixing import Gossip
from .topology import Exponential, Topology

if TYPE_CHECKING:
    from ..comm import Communicator


class GossipOptimizer(ReplicaOptimizer):
    """Wraps a torch optimizer: every step is this rank's own, and then parameters are averaged with the neighbours'.

    ::

        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        optimizer = pycoll.gossip.GossipOptimizer(optimizer, model.named_parameters(), topology=pycoll.gossip.Ring())
        ...  # train as ever
        optimizer.average()  # now all ranks have the same model

    Ranks' models are near each other, never the same; how near says :meth:`consensus_distance`. Momentum and other
    optimizer state stay with their rank, and so do buffers (running statistics).

    Args:
        optimizer: the optimizer to wrap. Its parameters are real CPU tensors.
        named_parameters: ``model.named_parameters()``, for the names in messages.
        comm: the ranks, by default ``pycoll.init()``. Messages travel on a duplicate of it.
        topology: who gossips with whom.
        codec, gamma, push_sum: as of :class:`pycoll.gossip.Gossip`. With a codec no parameter may be float64.
        overlap: neighbours' parameters travel while the next step is computed, and come in at its end
            (x(t + 1) = W x(t) - update(x(t)), decentralised SGD of Lian et al., arXiv 1705.09056); else a step ends
            when they are in (x(t + 1) = W (x(t) - update(x(t)))).
        every: exchanges at every so many steps.

    Raises:
        InvalidArgument: an argument is wrong; the sentence says which.
        MismatchError: ranks have different models or arguments, on every rank.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        named_parameters: Iterable[Named] | None = None,
        comm: Communicator | None = None,
        *,
        topology: Topology | None = None,
        codec: Codec | None = None,
        gamma: float | None = None,
        push_sum: bool = False,
        overlap: bool = False,
        every: int = 1,
    ) -> None:
        check_whole("GossipOptimizer", "every", every, 1)
        if not isinstance(overlap, bool):
            raise InvalidArgument(f"GossipOptimizer: overlap is {overlap!r}, wanted True or False")
        super().__init__(optimizer, named_parameters, comm, [("every", str(every)), ("overlap", str(overlap))], codec)
        self._overlap, self._every, self._steps = overlap, every, 0
        self._flat = Flat(self._trained)
        topology = Exponential() if topology is None else topology
        self.gossip = Gossip(self._comm, topology, codec=codec, gamma=gamma, push_sum=push_sum)

    def _meet(self) -> None:
        self._steps += 1
        if self._steps % self._every:
            return
        x = self._flat.read()
        if not self._overlap:
            self.gossip.mix(x)
        else:
            if self._steps > self._every:
                self.gossip.finish(x)
            self.gossip.start(x)
        self._flat.write(x)

    def average(self) -> None:
        """Gives all ranks the mean of their parameters. Collective; an allreduce."""
        self._flat.write(self.gossip.average(self._flat.read()))
        if self._overlap:
            self._steps = 0  # nothing is under way

    def consensus_distance(self) -> float:
        """Root mean square, over ranks, of the distance of parameters from their mean. Collective: an allreduce."""
        return self.gossip.consensus_distance(self._flat.read())

    @property
    def spectral_gap(self) -> float:
        """How fast exchanges alone come to consensus: see Topology.spectral_gap."""
        return self.gossip.spectral_gap

    def state_dict(self) -> dict[str, Any]:
        """The wrapped optimizer's state, and under the key ``"pycoll"`` that of the exchanges. Both differ from rank to
        rank, as parameters do, so each rank saves its own."""
        return {**self.optimizer.state_dict(), "pycoll": {"steps": self._steps, "gossip": self.gossip.state_dict()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes what state_dict() gave on the same rank of as many ranks. Parameters are loaded by you, each rank's
        own. Raises InvalidArgument for another rank's, and for a plain optimizer's."""
        own = self._own(state_dict, "gossip")
        self.gossip.load_state_dict(own["gossip"])
        self._steps = own["steps"]
        self.optimizer.load_state_dict(state_dict)

    def stats(self) -> dict[str, Any]:
        """Exchanges, messages sent by this rank, and their wire_bytes: see Gossip.stats."""
        return dict(self.gossip.stats())

    def close(self) -> None:
        """Closes the communicators; the wrapped optimizer stays usable."""
        self.gossip.close()
        super().close()


__all__ = ["GossipOptimizer"]
