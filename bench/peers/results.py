"""From blocks to figures: medians within one label, the fastest setting of each library, and how pycoll compares."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from .contestants import Contestant
from .probe import LABELS
from .rounds import Block

#: Bus bandwidth is this times bytes / time, as in nccl-tests.
BUSBW = {
    "allreduce": lambda ranks: 2 * (ranks - 1) / ranks,
    "reduce_scatter": lambda ranks: (ranks - 1) / ranks,
    "allgather": lambda ranks: (ranks - 1) / ranks,
    "broadcast": lambda ranks: 1.0,
    "alltoall": lambda ranks: (ranks - 1) / ranks,
}


@dataclass(frozen=True)
class Figure:
    """us: median over `blocks` blocks of each block's median; the quickest and slowest block beside it."""

    contestant: str
    collective: str
    ranks: int
    bytes: int
    label: str
    us: float
    least_us: float
    most_us: float
    blocks: int

    @property
    def busbw_gbs(self) -> float:
        return self.bytes / self.us / 1e3 * BUSBW[self.collective](self.ranks)


def figures_of(blocks: Iterable[Block]) -> list[Figure]:
    """One for each contestant, collective, ranks, bytes and label. Blocks in which the label changed do not count."""
    times: dict[tuple[str, str, int, int, str], list[float]] = defaultdict(list)
    for b in blocks:
        if b.label in LABELS:
            times[b.contestant, b.collective, b.ranks, b.bytes, b.label].append(b.us)
    return [Figure(*key, statistics.median(us), min(us), max(us), len(us)) for key, us in times.items()]


@dataclass(frozen=True)
class Comparison:
    """pycoll's contestant `ours` against the fastest of `theirs`; ratio above 1: pycoll is faster."""

    title: str
    ours: str
    theirs: tuple[str, ...]


def comparisons(contestants: Sequence[Contestant]) -> list[Comparison]:
    def names(kind: str, level: str, library: str | None = None) -> tuple[str, ...]:
        wanted = (kind, level)
        return tuple(c.name for c in contestants if (c.kind, c.level) == wanted and library in (None, c.library))

    made = []
    for ours in (c for c in contestants if c.kind == "pycoll"):
        if ours.level == "C":
            made.append(Comparison(f"{ours.name} : fastest peer", ours.name, names("peer", "C")))
        else:
            for library in dict.fromkeys(c.library for c in contestants if (c.kind, c.level) == ("peer", "Python")):
                made.append(Comparison(f"{ours.name} : {library}", ours.name, names("peer", "Python", library)))
    return [comparison for comparison in made if comparison.theirs]


class Figures:
    """Looked up by contestant and bytes, for one collective, number of ranks and label."""

    def __init__(self, figures: Iterable[Figure], collective: str, ranks: int, label: str) -> None:
        all_labels = [f for f in figures if (f.collective, f.ranks) == (collective, ranks)]
        here = [f for f in all_labels if f.label == label]
        self._measured = {(f.contestant, f.bytes) for f in all_labels}
        self._by = {(f.contestant, f.bytes): f for f in here}
        self.collective, self.ranks, self.label = collective, ranks, label
        self.sizes = sorted({f.bytes for f in here})

    def get(self, contestant: str, nbytes: int) -> Figure | None:
        return self._by.get((contestant, nbytes))

    def fastest(self, contestants: Iterable[str], nbytes: int) -> Figure | None:
        there = [f for name in contestants if (f := self.get(name, nbytes))]
        return min(there, key=lambda f: f.us, default=None)

    def bound(self, contestants: Sequence[str], nbytes: int) -> Figure | None:
        """The fastest, to compare with. None if one of them has blocks, but of the other label only: it may be that."""
        if any((name, nbytes) in self._measured and not self.get(name, nbytes) for name in contestants):
            return None
        return self.fastest(contestants, nbytes)

    def ratio(self, comparison: Comparison, nbytes: int) -> float | None:
        """The fastest peer's time by pycoll's."""
        ours, theirs = self.get(comparison.ours, nbytes), self.bound(comparison.theirs, nbytes)
        return theirs.us / ours.us if ours and theirs else None

    def of_roofline(self, contestant: str, roofline: Sequence[str], nbytes: int) -> float | None:
        """What part of the roofline's speed it has."""
        ours, bound = self.get(contestant, nbytes), self.bound(roofline, nbytes)
        return bound.us / ours.us if ours and bound else None

    def blocks(self, nbytes: int) -> tuple[int, int]:
        """Of a contestant: the fewest and the most."""
        counts = [f.blocks for (_, size), f in self._by.items() if size == nbytes]
        return min(counts), max(counts)


def document_of(blocks: Sequence[Block], figures: Sequence[Figure]) -> dict[str, object]:
    """As JSON has them."""
    return {
        "results": [{**asdict(f), "busbw_gbs": f.busbw_gbs} for f in figures],
        "blocks": [asdict(b) for b in blocks],
    }
