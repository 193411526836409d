"""What an allreduce costs, before it is run: seconds and bytes from a link, the speed of kernels, and an array.

The rounds and bytes are those at the head of each file in csrc/algo; docs/advise.md has the formulas, and how far they
are from what was measured. Nothing here communicates.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from .codec import Codec, RandomK, SharedScale, TopK
from .powersgd import PowerSGD

SMALL, MIDDLE = 16 << 10, 1 << 20  # bytes, as select.cc has them
WINDOW = 16  # messages under way at once


@dataclass(frozen=True)
class Link:
    """What a rank has of the network while all ranks use it: a message of b bytes takes latency + b / bandwidth.

    bandwidth: to one neighbour, while another one sends. spread: to all others at once, as they all do: no more than
    that, for streams that meet at a receiver wait for each other.
    """

    latency: float
    bandwidth: float
    spread: float


@dataclass(frozen=True)
class Group:
    """Ranks of which `nodes` meet over the link, `per_node` on each node. Between one node's ranks: per_node is 1.

    inside: seconds a byte of the array, for its reduce-scatter and its allgather inside a node. memory: seconds a byte
    of an allreduce where all ranks share memory, and so no link is used by dense ones; 0 if they do not.
    """

    link: Link
    nodes: int
    per_node: int = 1
    inside: float = 0.0
    memory: float = 0.0

    @property
    def ranks(self) -> int:
        return self.nodes * self.per_node


@dataclass(frozen=True)
class Speed:
    """Seconds an element of a codec's kernels while all ranks run them, and bytes an element of what they make.

    add: of decoding into a sum. select: of choosing exactly among sums (top-k). Of codecs that do not encode by
    themselves (shared scales, random k, PowerSGD) encode is everything.
    """

    encode: float
    decode: float = 0.0
    add: float = 0.0
    bytes: float = 4.0
    select: float = 0.0


@dataclass(frozen=True)
class Bucket:
    """Arrays of float32 that travel together."""

    shapes: tuple[tuple[int, ...], ...]
    compressed: bool = True  # False: too small, or of one dimension

    @property
    def count(self) -> int:
        return sum(math.prod(shape) for shape in self.shapes)


@dataclass(frozen=True)
class Cost:
    """Seconds on the wire and in kernels, their sum but for what overlaps, and bytes that a rank sends."""

    wire: float = 0.0
    kernels: float = 0.0
    seconds: float = 0.0
    bytes: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.wire + other.wire,
            self.kernels + other.kernels,
            self.seconds + other.seconds,
            self.bytes + other.bytes,
        )


def rounds_of_tree(ranks: int) -> int:
    return math.ceil(math.log2(ranks))


def agreement(group: Group) -> Cost:
    """Before anything else ranks compare what they called."""
    return _travel(group.link, rounds_of_tree(group.ranks), 0)


def dense(count: float, group: Group, add: float, itemsize: int = 4) -> Cost:
    """Allreduce of `count` elements as they are: float32, or bf16 of 2 bytes. add: seconds to add one."""
    size = count * itemsize
    if group.ranks == 1:
        return Cost()
    if group.memory:
        seconds = group.memory * size
        return agreement(group) + Cost(wire=seconds, seconds=seconds)
    across = _dense(count / group.per_node, replace(group, per_node=1), add, itemsize, itemsize == 2)
    if group.per_node == 1:
        return agreement(group) + across
    inside = group.inside * size
    return agreement(group) + Cost(across.wire, across.kernels + inside, max(across.seconds, inside), across.bytes)


def compressed(codec: Codec, bucket: Bucket, group: Group, speed: Speed, add: float) -> Cost:
    """Allreduce of a bucket with a codec. add: seconds to add one float32."""
    if not bucket.compressed:
        return dense(bucket.count, group, add)
    if isinstance(codec, PowerSGD):  # two calls, so they agree twice, and inside nodes factors are dense too
        thin = [shape for shape in bucket.shapes if codec.compresses(shape)]
        whole = sum(math.prod(shape) for shape in bucket.shapes if not codec.compresses(shape))
        p = sum(shape[0] for shape in thin) * codec.rank + whole
        q = sum(math.prod(shape[1:]) for shape in thin) * codec.rank
        return dense(p, group, add) + dense(q, group, add) + _work(speed.encode * bucket.count)
    inside = group.inside * 4 * bucket.count
    flat = replace(group, per_node=1)
    return agreement(group) + _work(inside) + _between(codec, bucket.count / group.per_node, flat, speed, add)


def _between(codec: Codec, count: float, group: Group, speed: Speed, add: float) -> Cost:
    """Of `count` elements, between all ranks of a group that has one a node."""
    local = _work((speed.encode + speed.decode) * count)
    if group.ranks == 1:
        return local
    if isinstance(codec, RandomK):
        return local + _dense(codec.k or codec.ratio * count, group, add)
    if isinstance(codec, SharedScale):
        return local + _dense(count / codec.block, group, add) + _dense(count, group, add, codec.bits // 8)
    return (_sparse if isinstance(codec, TopK) else _two_shot)(count, group, speed, add)


def _dense(count: float, group: Group, add: float, itemsize: int = 4, halves: bool = False) -> Cost:
    ranks, size, link = group.nodes, count * itemsize, group.link
    sent, adding = 2 * size * (ranks - 1) / ranks, add * count * (ranks - 1) / ranks
    if size <= SMALL:  # doubling
        cube = int(math.log2(ranks))
        return _travel(link, cube + 2 * (2**cube != ranks), size * cube) + _work(add * count * cube)
    if halves:  # pairwise
        return _spread(group, sent, 2) + _work(adding)
    if size <= MIDDLE:  # circulant; of two ranks doubling
        return _travel(link, 1 if ranks == 2 else 2 * rounds_of_tree(ranks), sent) + _work(adding)
    ring = _travel(link, 2 * (ranks - 1), sent)  # adds up one segment while others travel
    return Cost(ring.wire, adding, max(ring.wire, adding), sent)


def _two_shot(count: float, group: Group, speed: Speed, add: float) -> Cost:
    """All but a rank's own chunk is encoded and sent to its owner, and comes back added up and encoded once more."""
    ranks, chunk = group.ranks, count / group.ranks
    others = chunk * (ranks - 1)
    first = _overlapped(
        _spread(group, speed.bytes * others, 1),
        (speed.encode + speed.add) * others + 3 * add * chunk,
    )
    second = _overlapped(
        _spread(group, speed.bytes * others, 1),
        (speed.encode + speed.decode) * chunk + speed.decode * others,
    )
    return first + second


def _sparse(count: float, group: Group, speed: Speed, add: float) -> Cost:
    """Select, divide by counters, exchange, add up, select again, exchange; each ends before the next begins."""
    ranks = group.ranks
    sent = speed.bytes * count * (ranks - 1) / ranks
    entries = speed.bytes * count / 6
    counters = _dense(min(max(entries / 16, 64), 4096), group, 0)
    lengths = _travel(group.link, 1 + rounds_of_tree(ranks), 0)
    exchanges = _spread(group, 2 * sent, 2)
    each = speed.encode + speed.select / ranks + speed.add * (ranks - 1) / ranks + speed.decode
    return _work(each * count) + counters + lengths + exchanges


def _travel(link: Link, rounds: float, bytes: float) -> Cost:
    seconds = rounds * link.latency + bytes / link.bandwidth
    return Cost(wire=seconds, seconds=seconds, bytes=bytes)


def _spread(group: Group, bytes: float, times: int) -> Cost:
    """All send to all, a window of messages under way, so many times."""
    rounds = times * math.ceil((group.ranks - 1) / WINDOW)
    return _travel(replace(group.link, bandwidth=group.link.spread), rounds, bytes)


def _work(seconds: float) -> Cost:
    return Cost(kernels=seconds, seconds=seconds)


def _overlapped(wire: Cost, kernels: float) -> Cost:
    """Kernels work on one segment while others travel: half of what is shorter is hidden (docs/advise.md)."""
    longer, shorter = max(wire.wire, kernels), min(wire.wire, kernels)
    return Cost(wire.wire, kernels, longer + shorter / 2, wire.bytes)


def crossing(falls: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function of a positive number passes zero: low or high if it does not in between."""
    if falls(low) <= 0:
        return low
    if falls(high) >= 0:
        return high
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if falls(middle) > 0 else (low, middle)
    return math.sqrt(low * high)


def exposed(seconds: list[float], compute: float) -> float:
    """Seconds a step beyond `compute`: buckets become ready evenly over its last two thirds, the backward pass, and
    travel one after the other beside it."""
    end = 0.0
    for i, taken in enumerate(seconds):
        ready = compute / 3 + compute * 2 / 3 * (i + 1) / len(seconds)
        end = max(end, ready) + taken
    return max(0.0, end - compute)
