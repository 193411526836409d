#!/usr/bin/env python3
"""Draws docs/img/<algorithm>.svg from what the recorder writes down.

    python tools/draw_algorithms.py --record build/tests/cpp/record [--only ring] [--png /tmp/look]

`record` is built with the C++ tests (-DPYCOLL_TESTS=ON). Needs matplotlib.
"""

import argparse
import json
import math
import subprocess
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch


@dataclass(frozen=True)
class Panel:
    ranks: int
    count: int  # of f32
    note: str = ""


@dataclass(frozen=True)
class Drawing:
    title: str
    panels: tuple[Panel, Panel]
    trees: bool = False  # in the first panel, sizes tell the trees apart: their halves differ by one element


def both(count: int) -> tuple[Panel, Panel]:
    """A power of two and not; the count is divisible by both, and small enough for one segment."""
    return Panel(8, count), Panel(6, count)


# One segment of an odd count, and three segments of either half, of 64 KiB each.
TREES = (Panel(8, 4097, ", one segment a tree"), Panel(6, 3 * 2 * 16384, ", three segments a tree"))
DRAWINGS = {
    "ring": Drawing("Ring allreduce", both(48)),
    "circulant": Drawing("Circulant allreduce", both(48)),
    "halving": Drawing("Recursive halving and doubling", both(48)),
    "doubling": Drawing("Recursive doubling", both(48)),
    "tree": Drawing("Double binary tree allreduce", TREES, trees=True),
    "tree_broadcast": Drawing("Double binary tree broadcast from rank 0", TREES, trees=True),
    "tree_gather": Drawing("Binomial gather to rank 0", both(48)),
    "pairwise": Drawing("Pairwise allreduce", both(48)),
    "dissemination": Drawing("Dissemination barrier", both(0)),
    "hierarchical": Drawing("Hierarchical allreduce on two nodes", both(48)),
    "direct": Drawing("Direct allreduce in shared memory", both(48)),
}
FIRST_NODE = 4  # ranks of the first of two nodes, hierarchical only

INK, FAINT = "#1f2933", "#c8d0d8"
# Of messages of S, about S/2, S/4, ... bytes: the same in all drawings.
COLOURS = ["#8e1b3a", "#d1495b", "#e0892b", "#2a7f9e", "#5b4b9a", "#6b7785"]
TREE_COLOURS = ["#d1495b", "#2a7f9e"]


def style_of(size: int, whole: int) -> dict:
    if size == 0:
        return {"color": INK, "linewidth": 1.0}
    part = size / whole
    return {"color": COLOURS[min(round(-math.log2(part)), len(COLOURS) - 1)], "linewidth": 0.7 + 2.4 * math.sqrt(part)}


def recorded(record: str, name: str, panel: Panel) -> dict:
    command = [record, name, str(panel.ranks), str(panel.count), str(FIRST_NODE)]
    run = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout)
    run["moves"] = run["messages"] or run["reads"]
    run["last"] = max(m["round"] for m in run["moves"])
    return run


def share(size: int, whole: int) -> str:
    """`size` as a fraction of the array's bytes, S."""
    if size == 0:
        return "0"
    part = Fraction(size, whole).limit_denominator(64)
    top = "S" if part.numerator == 1 else f"{part.numerator}S"
    return top if part.denominator == 1 else f"{top}/{part.denominator}"


def draw_lines(axes, run: dict) -> None:
    """Time runs to the right on one line a rank."""
    ranks, last = run["ranks"], run["last"]
    if run["algorithm"] == "hierarchical":
        for low, high in ((0, FIRST_NODE - 1), (FIRST_NODE, ranks - 1)):
            axes.axhspan(low - 0.35, high + 0.35, color="#eef3f7", zorder=0)
    for rank in range(ranks):
        axes.plot([0, last], [rank, rank], color=FAINT, linewidth=1.2, zorder=1)
    for boundary in range(last + 1):
        axes.axvline(boundary, color=FAINT, linewidth=0.7, linestyle=(0, (2, 3)), zorder=0)
    axes.set_xlim(-0.1, last + 0.1)
    axes.set_ylim(ranks - 0.45, -0.95)
    axes.set_yticks(range(ranks), [str(rank) for rank in range(ranks)])
    axes.set_xticks([r + 0.5 for r in range(last)], [str(r + 1) for r in range(last)])
    axes.tick_params(length=0, labelsize=8, colors=INK)
    axes.set_xlabel("after barrier" if run["reads"] else "round", fontsize=8.5, color=INK)
    axes.set_ylabel("rank", fontsize=8.5, color=INK)
    for spine in axes.spines.values():
        spine.set_visible(False)


def draw_moves(axes, run: dict, styles: dict[int, dict]) -> None:
    for m in run["moves"]:
        arrow = FancyArrowPatch(
            (m["round"] - 1 + 0.06, m["from"]),
            (m["round"] - 0.06, m["to"]),
            arrowstyle="-|>,head_length=3.2,head_width=1.6",
            shrinkA=0,
            shrinkB=0,
            alpha=0.9,
            zorder=2 - m["bytes"] / (run["bytes"] + 1),  # small ones above large ones
            **styles[m["bytes"]],
        )
        axes.add_patch(arrow)


def draw_totals(axes, run: dict) -> None:
    mover = "to" if run["reads"] else "from"
    where = {"va": "center", "fontsize": 8, "color": INK}
    axes.text(run["last"] + 0.13, -0.72, "reads" if run["reads"] else "sends", style="italic", **where)
    for rank in range(run["ranks"]):
        moved = sum(m["bytes"] for m in run["moves"] if m[mover] == rank)
        axes.text(run["last"] + 0.13, rank, share(moved, run["bytes"]), **where)


def draw_panel(axes, run: dict, note: str, trees: bool) -> None:
    sizes = sorted({m["bytes"] for m in run["moves"]}, reverse=True)
    styles = {size: style_of(size, run["bytes"]) for size in sizes}
    labels = [share(size, run["bytes"]) if size else "no bytes" for size in sizes]
    if trees:
        for tree, size in enumerate(sizes):
            styles[size]["color"] = TREE_COLOURS[tree]
            labels[tree] = f"tree {tree}: {labels[tree]}"
    draw_lines(axes, run)
    draw_moves(axes, run, styles)
    if run["bytes"]:
        draw_totals(axes, run)
    axes.set_title(f"P = {run['ranks']}{note}", fontsize=9.5, color=INK)
    axes.legend(
        [Line2D([], [], **styles[size]) for size in sizes],
        labels,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.17),
        ncols=4,
        frameon=False,
        fontsize=8,
        handlelength=1.6,
        columnspacing=1.2,
    )


def draw(record: str, name: str, to: Path) -> None:
    drawing = DRAWINGS[name]
    runs = [recorded(record, name, panel) for panel in drawing.panels]
    # Few rounds get room for slopes, many get less each.
    widths = [max(2.8, min(7.5, 0.62 * run["last"] if run["last"] > 4 else 1.1 * run["last"])) for run in runs]
    figure, panels = plt.subplots(
        1, 2, figsize=(sum(widths) + 2.6, 3.9), width_ratios=widths, gridspec_kw={"wspace": 3 / sum(widths)}
    )
    for axes, run, panel in zip(panels, runs, drawing.panels, strict=True):
        draw_panel(axes, run, panel.note, drawing.trees and panel is drawing.panels[0])
    middle = (panels[0].get_position().x0 + panels[1].get_position().x1) / 2
    figure.suptitle(drawing.title, fontsize=11.5, color=INK, x=middle, y=1.02)
    to.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"Date": None} if to.suffix == ".svg" else None
    figure.savefig(to, bbox_inches="tight", facecolor="white", dpi=110, metadata=metadata)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", default="build/tests/cpp/record", help="the executable built from tools/record.cc")
    parser.add_argument("--only", action="append", choices=list(DRAWINGS), help="draw this one; may be repeated")
    parser.add_argument("--png", type=Path, help="write PNG files into this folder instead")
    arguments = parser.parse_args()
    plt.rcParams.update({"svg.hashsalt": "pycoll", "font.family": "DejaVu Sans"})  # the same bytes every time
    images = Path(__file__).resolve().parent.parent / "docs" / "img"
    for name in arguments.only or DRAWINGS:
        to = arguments.png / f"{name}.png" if arguments.png else images / f"{name}.svg"
        draw(arguments.record, name, to)
        print(to)


if __name__ == "__main__":
    main()
