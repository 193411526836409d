"""Pictures: time and bus bandwidth against size, near and far side by side, each line named at its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log10, nan
from pathlib import Path
from typing import Any

from .contestants import Contestant
from .probe import LABELS
from .results import Figure, Figures
from .table import MEANING, size_name

BLUE, LIGHT_BLUE, BLACK = "#0b5fa5", "#4fa3dd", "#222222"
LEAST_GBS = 0.1  # below, bandwidth is latency, which the upper row shows
LEFT, PANEL, NAMES = 0.8, 4.7, 1.5  # inches: beside the first panel, a panel, the names right of it
PEERS = ("#c8553d", "#d99a2b", "#5b8c5a", "#8a6bb1", "#8c7a6b")


@dataclass(frozen=True)
class Line:
    """Contestants that are one line: at each size the fastest of them."""

    title: str
    contestants: tuple[str, ...]
    style: dict[str, Any]


def lines_of(contestants: Sequence[Contestant], level: str) -> list[Line]:
    here = [c for c in contestants if c.level == level]
    lines = []
    peers = list(dict.fromkeys(c.library for c in here if c.kind == "peer"))
    for library, colour in zip(peers, PEERS * len(peers), strict=False):
        names = tuple(c.name for c in here if c.library == library)
        lines.append(Line(library, names, {"color": colour, "linewidth": 1.2, "marker": "o", "markersize": 3}))
    for memory, colour in (("private", LIGHT_BLUE), ("symmetric", BLUE)):
        names = tuple(c.name for c in here if c.kind == "pycoll" and c.memory == memory)
        style = {"color": colour, "linewidth": 2.4, "marker": "o", "markersize": 4.5}
        lines.append(Line(f"pycoll, {memory}", names, style))
    roofline = tuple(c.name for c in here if c.kind == "roofline")
    lines.append(Line("roofline", roofline, {"color": BLACK, "linewidth": 1.2, "linestyle": (0, (4, 3))}))
    return [line for line in lines if line.contestants]


def draw(figures: Sequence[Figure], contestants: Sequence[Contestant], folder: Path) -> list[Path]:
    """One file a collective, number of ranks and level; their paths. None without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        print("no pictures: matplotlib is not installed")
        return []
    matplotlib.use("Agg")
    paths = []
    for collective, ranks in dict.fromkeys((f.collective, f.ranks) for f in figures):
        moods = [Figures(figures, collective, ranks, label) for label in LABELS]
        moods = [mood for mood in moods if len(mood.sizes) > 1]
        for level in ("C", "Python"):
            lines = lines_of(contestants, level)
            if any(_points(mood, line) for mood in moods for line in lines):
                path = folder / f"{collective}-{ranks}-ranks-{level.lower()}.png"
                folder.mkdir(parents=True, exist_ok=True)
                _picture(moods, lines, level, path)
                paths.append(path)
    return paths


def _points(mood: Figures, line: Line) -> list[Figure]:
    return [f for n in mood.sizes if (f := mood.bound(line.contestants, n))]


def _picture(moods: Sequence[Figures], lines: Sequence[Line], level: str, path: Path) -> None:
    from matplotlib import pyplot

    columns = len(moods)
    sizes = sorted({n for mood in moods for n in mood.sizes})
    width = LEFT + columns * (PANEL + NAMES)
    figure, axes = pyplot.subplots(2, columns, figsize=(width, 8.6), sharex=True, sharey="row", squeeze=False)
    figure.subplots_adjust(
        left=LEFT / width, right=1 - NAMES / width, wspace=NAMES / PANEL, hspace=0.22, top=0.9, bottom=0.07
    )
    figure.suptitle(
        f"{moods[0].collective}, {moods[0].ranks} ranks, called from {level}: each library at its fastest setting",
        x=LEFT / width,
        ha="left",
        fontsize=13,
        fontweight="bold",
    )
    for column, mood in enumerate(moods):
        upper, lower = axes[0][column], axes[1][column]
        upper.set_title(MEANING[mood.label], loc="left", fontsize=11, color="#555555")
        _panel(upper, mood, sizes, lines, "us")
        _panel(lower, mood, sizes, lines, "busbw_gbs")
    axes[0][0].set_ylabel("microseconds a call")
    axes[1][0].set_ylabel("bus bandwidth, GB/s")
    # Names only once the limits, which the panels of a row share, are what they will be.
    figure.canvas.draw()
    for column, mood in enumerate(moods):
        for row, quantity in enumerate(("us", "busbw_gbs")):
            _name_lines(axes[row][column], mood, lines, quantity)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _panel(axis: Any, mood: Figures, sizes: Sequence[int], lines: Sequence[Line], quantity: str) -> None:
    for line in lines:
        at = {point.bytes: getattr(point, quantity) for point in _points(mood, line)}
        axis.plot(sizes, [at.get(n, nan) for n in sizes], **line.style)
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    if quantity == "busbw_gbs":
        axis.set_ylim(bottom=LEAST_GBS)
    axis.set_xticks(sizes, [size_name(n).replace(" ", "\n") for n in sizes])
    axis.minorticks_off()
    axis.tick_params(labelbottom=True, labelsize=9)
    axis.grid(color="#e6e6e6", linewidth=0.8)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def _name_lines(axis: Any, mood: Figures, lines: Sequence[Line], quantity: str) -> None:
    """Each line's name right of its last point, moved apart where they would overlap."""
    ends = [(points[-1], line) for line in lines if (points := _points(mood, line))]
    (left, right), (low, high) = ([log10(limit) for limit in limits()] for limits in (axis.get_xlim, axis.get_ylim))
    levels = [(log10(max(getattr(point, quantity), 1e-9)) - low) / (high - low) for point, _ in ends]
    last = max((point.bytes for point, _ in ends), default=0)
    leader = {"arrowstyle": "-", "linewidth": 0.5, "alpha": 0.5, "shrinkA": 1, "shrinkB": 3}
    for level, height, (point, line) in zip(levels, spread(levels, gap=0.052), ends, strict=True):
        colour = line.style["color"]
        axis.annotate(
            line.title,
            xy=((log10(point.bytes) - left) / (right - left), max(level, 0.0)),
            xytext=(1.02, height),
            xycoords="axes fraction",
            textcoords="axes fraction",
            color=colour,
            fontsize=9,
            fontweight="bold" if "pycoll" in line.title else "normal",
            va="center",
            annotation_clip=False,
            # Across the panel, from a line that ends early, it would look like a line itself.
            arrowprops={**leader, "color": colour} if point.bytes == last else None,
        )


def spread(levels: Sequence[float], gap: float) -> list[float]:
    """The levels, from 0 to 1, moved as little as it takes to be `gap` apart, in their order and between 0 and 1."""
    order = sorted(range(len(levels)), key=lambda i: levels[i])
    clusters: list[list[int]] = []

    def lowest(cluster: list[int]) -> float:
        middle = sum(levels[i] for i in cluster) / len(cluster)
        extent = gap * (len(cluster) - 1)
        return min(max(middle - extent / 2, 0.0), 1.0 - extent)

    for i in order:
        clusters.append([i])
        while len(clusters) > 1 and lowest(clusters[-1]) < lowest(clusters[-2]) + gap * len(clusters[-2]):
            clusters[-2:] = [clusters[-2] + clusters[-1]]
    moved = [0.0] * len(levels)
    for cluster in clusters:
        for position, i in enumerate(cluster):
            moved[i] = lowest(cluster) + gap * position
    return moved
