"""Averaging with neighbours: one exchange a step, plain, by push-sum, or of compressed differences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np

from ..agree import by_value, check_agreement
from ..codec import Codec, RandomK, SharedScale, Sign, TopK, decode, encode, most_bytes
from ..during import during
from ..errors import Error, InvalidArgument
from ..powersgd import PowerSGD
from .topology import Topology, checked_peers

if TYPE_CHECKING:
    from ..comm import Communicator


_HEADER = 32  # bytes of a message before its elements: docs/wire.md


class Gossip:
    """Brings an array of each rank to the mean of all of them, a few neighbours at a time.

    ::

        gossip = pycoll.gossip.Gossip(comm, pycoll.gossip.Exponential())
        for ...:
            x -= rate * gradient(x)
            gossip.mix(x)

    Three ways, of one array a Gossip:

    - plain: x becomes W x (Lian et al., arXiv 1705.09056);
    - ``push_sum=True``: a weight travels with the array and is divided out (Kempe et al., FOCS 2003; for training
      Assran et al., arXiv 1811.10792), so that topologies that are not balanced come to the mean as well. What is added
      to x between exchanges counts by the rank's weight at that time; weights are 1 in the mean over ranks;
    - ``codec=``: CHOCO (Koloskova et al., arXiv 1902.00340). Ranks send what an array differs from that which their
      neighbours know of it, encoded; what a codec leaves out is in the next difference, which is error feedback. Each
      rank keeps two arrays for that, however many neighbours it has.

    Construction is collective, and so is a first call of mix() or start(). Messages travel on a duplicate of `comm`.

    Args:
        comm: the ranks.
        topology: one of pycoll.gossip, alike on all ranks; with a codec it must be static and balanced.
        codec: any of pycoll.codec but SharedScale and PowerSGD, which need all ranks. Arrays are float32 then.
        gamma: part of the way to go towards the neighbours, above 0 and at most 1. By default 1 without a codec; 0.8
            for dense ones, 0.05 for Sign, 2 · ratio (at most 0.8) for TopK and ratio / 2 for RandomK. Too large a gamma
            lets what codecs leave out grow without end; docs/gossip.md has what was found.
        push_sum: for topologies that are not balanced.

    Raises:
        InvalidArgument: an argument is wrong, or the topology has no such number of ranks.
        MismatchError: ranks called with different ones, on every rank.
    """

    def __init__(
        self,
        comm: Communicator,
        topology: Topology,
        *,
        codec: Codec | None = None,
        gamma: float | None = None,
        push_sum: bool = False,
    ) -> None:
        if gamma is None:
            gamma = _gamma_of(codec, comm.rank)
        _check(topology, codec, gamma, push_sum, comm.rank)
        topology.check(comm.size)
        self.topology, self.codec, self.gamma, self.push_sum = topology, codec, float(gamma), push_sum
        self.step = 0  # number of the next exchange
        self.weight = 1.0  # of push-sum
        self._comm = comm.dup()
        self._state: dict[str, np.ndarray] = {}  # of a codec: what all know of this rank, and W times that
        self._correction: np.ndarray | None = None  # of an exchange that has come in
        self._sent: np.ndarray | None = None
        self._receiving: list[tuple[float, np.ndarray, Any]] = []  # weight, message, work
        self._sending: list[Any] = []
        self._plans: dict[int, tuple[list[tuple[int, float]], Sequence[int]]] = {}  # of steps to come, where they recur
        self._messages = self._wire_bytes = 0
        self._agreed: tuple[int, str] | None = None
        try:
            facts = [("topology", by_value(topology)), ("codec", repr(codec)), ("gamma", repr(self.gamma))]
            check_agreement(self._comm, "Gossip", facts + [("push_sum", repr(push_sum))])
        except Error:
            self._comm.close()
            raise

    def mix(self, x: Any) -> Any:
        """One exchange, in place; returns x. float32 or float64, contiguous; NumPy or a torch tensor on the CPU."""
        self.start(x)
        return self.finish(x)

    def start(self, x: Any) -> None:
        """Sends x to the neighbours and returns. x may be changed until finish(): it will get what mix() would have
        added to it as it is now."""
        values = self._values(x)
        if self._sent is not None:
            raise self._invalid(f"start() before exchange {self.step} was finished, wanted finish()")
        sources, peers = self._neighbours()
        message = self._message(values)
        self._sent = message
        with self._during():
            for source, weight in sources:
                place = np.empty_like(message)
                self._receiving.append((weight, place, self._comm.recv(place, source, wait=False)))
            for peer in peers:
                self._sending.append(self._comm.send(message, peer, wait=False))
        self._messages += len(self._sending)
        self._wire_bytes += len(self._sending) * (message.nbytes + _HEADER)

    def finish(self, x: Any) -> Any:
        """Waits for the neighbours' and adds what they make of the difference; returns x."""
        values = self._values(x)
        self._receive()
        if self._correction is None:
            raise self._invalid("finish() without a start(), wanted start()")
        values += self._correction
        self._correction = None
        return x

    def consensus_distance(self, x: Any) -> float:
        """Root mean square, over ranks, of the distance of x from the mean over ranks. Collective: an allreduce."""
        values = self._values(x).astype(np.float64)
        mean = self._comm.allreduce(values.copy(), op="avg")
        square = self._comm.allreduce(np.array([np.square(values - mean).sum()]), op="avg")
        return math.sqrt(float(square[0]))

    @property
    def spectral_gap(self) -> float:
        """How fast plain exchanges come to consensus: see Topology.spectral_gap."""
        return self.topology.spectral_gap(self._comm.size)

    def average(self, x: Any) -> Any:
        """Sets x to that to which exchanges would bring it, exactly, on all ranks; returns x. Collective."""
        values = self._values(x)
        if self._sent is not None:
            self.finish(x)
        if self.push_sum:
            values *= self.weight
            self.weight = 1.0
        self._comm.allreduce(values, op="avg")  # weights sum to the number of ranks
        return x

    def stats(self) -> dict[str, int]:
        """Exchanges, messages sent by this rank, and their wire_bytes, a header of 32 bytes each included."""
        return {"exchanges": self.step, "messages": self._messages, "wire_bytes": self._wire_bytes}

    def state_dict(self) -> dict[str, Any]:
        """This rank's state; differs from rank to rank. Waits for the neighbours of an exchange under way."""
        self._receive()
        arrays = {name: array.copy() for name, array in self._state.items()}
        pending = None if self._correction is None else self._correction.copy()
        who = {"rank": self._comm.rank, "ranks": self._comm.size}
        return {**who, "step": self.step, "weight": self.weight, "arrays": arrays, "pending": pending}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what state_dict() gave on the same rank of as many ranks. Raises InvalidArgument for another's."""
        who = state["rank"], state["ranks"]
        if who != (self._comm.rank, self._comm.size):
            raise InvalidArgument(
                f"Gossip: a state of rank {who[0]} of {who[1]} was given to rank {self._comm.rank} of {self._comm.size}"
            )
        self._receive()
        self.step, self.weight = state["step"], state["weight"]
        self._state = {name: np.array(array) for name, array in state["arrays"].items()}
        self._correction = None if state["pending"] is None else np.array(state["pending"])

    def close(self) -> None:
        """Closes the communicator; collective, in the sense that others' exchanges with this rank then raise."""
        self._comm.close()

    # Inside.

    def _during(self) -> AbstractContextManager[None]:
        return during(f"Gossip: rank {self._comm.rank} in exchange {self.step}")

    def _invalid(self, what: str) -> InvalidArgument:
        return InvalidArgument(f"Gossip: rank {self._comm.rank} got {what}")

    def _neighbours(self) -> tuple[list[tuple[int, float]], Sequence[int]]:
        """Of this step: whom this rank hears, with what weight; and whom it tells."""
        rank, size = self._comm.rank, self._comm.size
        period = self.topology.period(size)
        step = self.step if period is None else self.step % period
        if step not in self._plans:
            peers = checked_peers(self.topology, size, step)
            heard = [(source, 1 / (1 + len(its))) for source, its in enumerate(peers) if rank in its]
            if period is None:
                self._plans.clear()
            self._plans[step] = heard, peers[rank]
        return self._plans[step]

    def _message(self, values: np.ndarray) -> np.ndarray:
        """What neighbours get: the array, with push-sum's weight behind it, or an encoded difference."""
        if self.codec is not None:
            if not self._state:
                # float64: what rounding left different between ranks would pull on x at every step to come.
                self._state = {name: np.zeros(values.size) for name in ("known", "sums")}
            codec = self.codec.at(self.step)
            # Of one length on all ranks, so that a message needs no other to announce it.
            wire = np.zeros(most_bytes(codec, values.size), np.uint8)
            difference = (values - self._state["known"]).astype(np.float32)
            encode(difference, codec, step=self.step, stream=self._comm.rank, wire=wire)
            return wire
        if self.push_sum:
            return np.append(values * values.dtype.type(self.weight), values.dtype.type(self.weight))
        return values.copy()

    def _receive(self) -> None:
        """Waits for an exchange under way, if there is one, and knows then what is to be added."""
        if self._sent is None:
            return
        with self._during():
            for _, _, work in self._receiving:
                work.wait()
            for work in self._sending:
                work.wait()
        message, self._sent = self._sent, None
        own = 1 / (1 + len(self._sending))
        self._correction = self._of_known(message, own) if self.codec is not None else self._of_arrays(message, own)
        self._receiving, self._sending = [], []
        self.step += 1

    def _of_arrays(self, message: np.ndarray, own: float) -> np.ndarray:
        mixed = message * message.dtype.type(own)
        for weight, received, _ in self._receiving:
            mixed += received * received.dtype.type(weight)
        if not self.push_sum:
            return (mixed - message) * message.dtype.type(self.gamma)
        before = message[:-1] / message[-1]
        self.weight = float(mixed[-1])
        return mixed[:-1] / mixed[-1] - before

    def _of_known(self, message: np.ndarray, own: float) -> np.ndarray:
        known, sums = self._state["known"], self._state["sums"]
        for weight, wire, _ in [(own, message, None), *self._receiving]:
            difference = decode(wire, np.empty(known.size, np.float32))
            if wire is message:
                known += difference
            sums += weight * difference.astype(np.float64)
        return ((sums - known) * self.gamma).astype(np.float32)

    def _values(self, x: Any) -> np.ndarray:
        """x as one row of numbers, in place. The first time, ranks compare how many there are, and of what type."""
        values = x
        if hasattr(x, "detach"):  # a torch tensor
            try:
                values = x.detach().numpy()
            except TypeError:  # torch's words for bfloat16, and for what is on a device
                values = None
        if not isinstance(values, np.ndarray) or not values.flags.c_contiguous or not values.flags.writeable:
            came = f"{x.dtype}{list(x.shape)}" if hasattr(x, "shape") else type(x).__name__
            raise self._invalid(
                f"{came}, wanted a contiguous NumPy array, or a torch tensor on the CPU, that can be written to"
            )
        wanted = ("float32",) if self.codec is not None else ("float32", "float64")
        if values.dtype.name not in wanted:
            raise self._invalid(f"{values.dtype.name}[{values.size}], wanted {' or '.join(wanted)}")
        kind = values.size, values.dtype.name
        if self._agreed is None:
            check_agreement(self._comm, "Gossip", [("the array", f"{kind[1]}[{kind[0]}]")])
            self._agreed = kind
        if kind != self._agreed:
            raise self._invalid(f"{kind[1]}[{kind[0]}], before it was {self._agreed[1]}[{self._agreed[0]}]")
        return values.reshape(-1)


def _gamma_of(codec: Any, rank: int) -> float:
    if isinstance(codec, (TopK, RandomK)):
        if not isinstance(codec.ratio, (int, float)) or codec.k:
            raise InvalidArgument(
                f"Gossip: rank {rank} got no gamma, wanted a gamma for {codec!r}; docs/gossip.md says how large"
            )
        return min(0.8, (2 if isinstance(codec, TopK) else 0.5) * codec.ratio)
    return 1.0 if codec is None else 0.05 if isinstance(codec, Sign) else 0.8


def _check(topology: Any, codec: Any, gamma: Any, push_sum: Any, rank: int) -> None:
    if not isinstance(topology, Topology):
        raise InvalidArgument(
            f"Gossip: on rank {rank} topology is {topology!r}, wanted one of pycoll.gossip, Ring() for example"
        )
    if isinstance(gamma, bool) or not isinstance(gamma, (int, float)) or not 0 < gamma <= 1:
        raise InvalidArgument(f"Gossip: on rank {rank} gamma is {gamma!r}, wanted above 0 and at most 1")
    if not isinstance(push_sum, bool):
        raise InvalidArgument(f"Gossip: on rank {rank} push_sum is {push_sum!r}, wanted True or False")
    if push_sum and (codec is not None or gamma != 1):
        raise InvalidArgument(f"Gossip: on rank {rank} push_sum has neither a codec nor a gamma below 1")
    if not topology.balanced and not push_sum:
        raise InvalidArgument(
            f"Gossip: on rank {rank} {by_value(topology)} is not balanced, so only push_sum=True comes to the mean"
        )
    if codec is None:
        return
    if not isinstance(codec, Codec) or isinstance(codec, (SharedScale, PowerSGD)):
        raise InvalidArgument(
            f"Gossip: on rank {rank} codec is {codec!r}, wanted one of pycoll.codec that needs no other ranks"
        )
    if not topology.static:
        raise InvalidArgument(
            f"Gossip: on rank {rank} {by_value(topology)} changes from step to step; a codec wants one that is static"
        )


__all__ = ["Gossip"]
