"""Measures what `pycoll advise` predicts with: the link and the kernels, all ranks at work at once."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from pycoll import _core
from pycoll.codec import Codec, Identity, RandomK, SharedScale, TopK
from pycoll.cost import WINDOW, Bucket, Group, Link, Speed, rounds_of_tree
from pycoll.powersgd import PowerSGD

from .tune import slowest, time_batch

ROUNDS = 5
SENT = (1 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20)  # bytes that each rank sends
SEGMENT = 64 << 10  # elements, as two_shot.cc has them
MOST = 4 << 20  # elements that kernels are measured with: more than the caches hold


def group_of(comm: Any, seconds: float) -> Group:
    """The ranks, the link as they see it, and what is not done over it."""
    ranks_of = Counter(comm.hosts)
    if len(ranks_of) in (1, comm.size):
        memory = 0.0
        if comm.transport == "shm" and comm.size > 1:
            x = np.zeros(MOST, np.float32)
            memory = seconds_of(comm, lambda: comm.allreduce(x), seconds) / x.nbytes
        return Group(link_of(comm, seconds), comm.size, memory=memory)
    lanes = min(ranks_of.values())
    node = comm.split(sorted(ranks_of).index(comm.hosts[comm.rank]), comm.rank)
    across = comm.split(node.rank if node.rank < lanes else None, comm.rank)
    inside = _inside(comm, node, seconds)
    own = link_of(across, seconds) if across else Link(0.0, math.inf, math.inf)
    slow = [slowest(comm, x) for x in (own.latency, 1 / own.bandwidth, 1 / own.spread)]
    link = Link(slow[0], 1 / slow[1], 1 / slow[2])
    return Group(link, len(ranks_of), lanes, inside=inside)


def _inside(comm: Any, node: Any, seconds: float) -> float:
    """Seconds a byte of array for what is done inside nodes, all nodes at once."""
    part = np.zeros(MOST // node.size, np.float32)
    whole = np.zeros(part.size * node.size, np.float32)

    def both() -> None:
        node.reduce_scatter(whole, part, algo="ring")
        node.allgather(part, whole, algo="ring")

    return seconds_of(comm, both, seconds) / whole.nbytes


def link_of(comm: Any, seconds: float) -> Link:
    """What every rank streams to the next one in a ring, and to all others at once, by length; until one is long."""
    if comm.size == 1:
        return Link(0.0, math.inf, math.inf)
    agree = rounds_of_tree(comm.size)
    ring, pairwise = Stream(agree + comm.size - 1, []), Stream(agree + math.ceil((comm.size - 1) / WINDOW), [])
    for sent in SENT:
        part = np.zeros(max(1, sent // (comm.size - 1)), np.uint8)
        whole = np.zeros(part.size * comm.size, np.uint8)
        for stream, algo in ((ring, "ring"), (pairwise, "pairwise")):
            taken = seconds_of(comm, partial(comm.allgather, part, whole, algo=algo), seconds)
            stream.points.append((part.size * (comm.size - 1), taken))
        if len(ring.points) >= 3 and pairwise.points[-1][1] > seconds:
            break
    return Link(min(ring.latency(), pairwise.latency()), ring.bandwidth(), pairwise.bandwidth())


class Stream(NamedTuple):
    """How long so many rounds took: bytes and seconds, shortest first."""

    rounds: int
    points: list[tuple[int, float]]

    def bandwidth(self) -> float:
        """Median of those between each length and the next, in which the latency cancels."""
        slopes = [(t - s) / (m - b) for (b, s), (m, t) in zip(self.points, self.points[1:], strict=False) if m > b]
        return 1 / max(statistics.median(slopes), 1e-15)

    def latency(self) -> float:
        """What the shortest took beyond its bytes."""
        bytes, seconds = self.points[0]
        return max(seconds - bytes / self.bandwidth(), 1e-9) / self.rounds


def seconds_of(comm: Any, call: Callable[[], object], seconds: float) -> float:
    """A call's seconds: median over batches, slowest rank. Calls follow each other closely, so that what a shaper lets
    through at once, or a buffer takes, does not count."""
    first = slowest(comm, time_batch(comm, call, 2))
    count = max(1, min(1000, int(seconds / ROUNDS / max(first, 1e-7))))
    return slowest(comm, statistics.median(time_batch(comm, call, count) for _ in range(ROUNDS)))


def speeds_of(comm: Any, codecs: Sequence[Codec], bucket: Bucket, seconds: float) -> list[Speed]:
    """Of each codec, on data like the bucket. PowerSGD gets the bucket's matrices."""
    alone = comm.split(comm.rank)
    count = min(MOST, max(bucket.count, 1))
    x = np.random.default_rng(comm.rank).standard_normal(count, np.float32)
    found = []
    for codec in codecs:
        if isinstance(codec, PowerSGD):
            arrays: Any = [np.resize(x, shape) for shape in bucket.shapes]
            found.append(Speed(_whole(comm, alone, codec, arrays, seconds)))
        elif isinstance(codec, (RandomK, SharedScale)):
            found.append(Speed(_whole(comm, alone, codec, x, seconds)))
        else:
            found.append(_parts(comm, codec, x, seconds))
    alone.close()
    return found


def add_speed(comm: Any, seconds: float) -> float:
    """Seconds to add one float32 to a sum."""
    return _parts(comm, Identity(), np.ones(MOST, np.float32), seconds).add


def _whole(comm: Any, alone: Any, codec: Codec, x: Any, seconds: float) -> float:
    """Seconds an element of an allreduce by itself: all but the communication."""
    from pycoll.feedback import Feedback

    feedback = Feedback(x)
    out = [np.empty_like(a) for a in x] if isinstance(x, list) else np.empty_like(x)
    call = partial(alone.allreduce, x, out=out, codec=codec, feedback=feedback)
    return seconds_of(comm, call, seconds) / sum(a.size for a in (x if isinstance(x, list) else [x]))


def _parts(comm: Any, codec: Codec, x: np.ndarray, seconds: float) -> Speed:
    """Encode, decode and add, by segments as the collective has them; top-k selects from the whole."""
    step = x.size if isinstance(codec, TopK) else SEGMENT
    parts = [slice(begin, min(begin + step, x.size)) for begin in range(0, x.size, step)]
    residual, out = np.zeros_like(x), np.zeros_like(x)
    wire = np.empty((len(parts), codec.core.most_bytes(step)), np.uint8)
    lengths = [0] * len(parts)

    def encode() -> None:
        for i, part in enumerate(parts):
            lengths[i] = codec.core.encode(x[part], wire[i], residual[part], 0, 0, part.start)

    def decode(into: Callable[[Any, Any], None]) -> None:
        for i, part in enumerate(parts):
            into(out[part], wire[i, : lengths[i]])

    encoding = seconds_of(comm, encode, seconds) / x.size
    decoding = seconds_of(comm, partial(decode, _core.decode_into), seconds) / x.size
    adding = seconds_of(comm, partial(decode, _core.decode_add), seconds) / x.size
    bytes = sum(lengths) / x.size
    selecting = 0.0
    if isinstance(codec, TopK):
        exactly = replace(codec, exact=True).core
        selecting = seconds_of(comm, lambda: exactly.encode(x, wire[0], None, 0, 0, 0), seconds) / x.size
    return Speed(encoding, decoding, adding, bytes, selecting)
