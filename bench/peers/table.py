"""The table: a line a contestant, a column a size, and at the foot of each column how pycoll compares."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .contestants import Contestant
from .probe import LABELS
from .results import Comparison, Figure, Figures, comparisons

UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
MEANING = {"near": "cores near", "far": "cores far apart", "unknown": "distance of cores unknown"}


def size_name(nbytes: int) -> str:
    for unit, name in UNITS:
        if nbytes >= unit and nbytes % unit == 0:
            return f"{nbytes // unit} {name}"
    return f"{nbytes} B"


def time_name(us: float | None) -> str:
    """Three digits that count."""
    if us is None:
        return "–"
    return f"{us:.0f}" if us >= 99.95 else f"{us:.1f}" if us >= 9.995 else f"{us:.2f}"


def ratio_name(ratio: float | None) -> str:
    if ratio is None:
        return "–"
    return f"{ratio:.0f}×" if ratio >= 99.5 else f"{ratio:.1f}×" if ratio >= 9.95 else f"{ratio:.2f}×"


def tables(figures: Sequence[Figure], contestants: Sequence[Contestant]) -> str:
    """All of them; empty if nothing was measured."""
    parts = []
    for collective, ranks in dict.fromkeys((f.collective, f.ranks) for f in figures):
        for label in LABELS:
            here = Figures(figures, collective, ranks, label)
            if here.sizes:
                parts.append(table(here, contestants))
    return "\n\n".join(parts)


def table(here: Figures, contestants: Sequence[Contestant]) -> str:
    """Microseconds for one collective, number of ranks and label."""
    sizes = here.sizes
    lines = [["", *(size_name(n) for n in sizes)]]
    level = ""
    for c in contestants:
        cells = [here.get(c.name, n) for n in sizes]
        if not any(cells):
            continue
        if c.level != level and level:
            lines.append([])
        level = c.level
        lines.append([c.name, *(time_name(cell.us if cell else None) for cell in cells)])
    lines.append(["blocks of a contestant", *("–".join(str(k) for k in dict.fromkeys(here.blocks(n))) for n in sizes)])
    lines.append([])
    for comparison in comparisons(contestants):
        lines += _ratios(here, comparison, sizes)
    roofline = [c.name for c in contestants if c.kind == "roofline"]
    for c in contestants:
        parts = [here.of_roofline(c.name, roofline, n) for n in sizes]
        if c.kind == "pycoll" and c.memory == "symmetric" and any(parts):
            lines.append([f"{c.name} : roofline", *("–" if p is None else f"{p:.0%}" for p in parts)])
    title = f"{here.collective}, {here.ranks} ranks, {MEANING[here.label]}: microseconds a call, median"
    return "\n".join([title, *_align(lines)])


def _ratios(here: Figures, comparison: Comparison, sizes: Iterable[int]) -> list[list[str]]:
    ratios = [here.ratio(comparison, n) for n in sizes]
    if not any(ratios):
        return []
    return [[comparison.title, *(ratio_name(ratio) for ratio in ratios)]]


def _align(lines: Sequence[Sequence[str]]) -> list[str]:
    first = max(len(line[0]) for line in lines if line)
    width = max(len(cell) for line in lines for cell in line[1:]) + 2
    return [
        "".join([line[0].ljust(first), *(cell.rjust(width) for cell in line[1:])]) if line else "" for line in lines
    ]
