"""The picture: test accuracy against time and against bytes, a line a contestant, a row a rate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .contestants import BY_NAME
from .results import arrivals, curve
from .table import DENSE
from .task import TARGET

INK, GREY = "#22303c", "#8a97a3"
GLOO = ("#d99a2b", "#e9b96e", "#c8553d", "#dd8670", "#a8452f")
PYCOLL = ("#0b5fa5", "#4fa3dd", "#2a9d8f", "#5b8c5a", "#93b04b", "#8a6bb1", "#b48ed6", "#3d4f9f")
TICKS = (0.2, 0.5, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99)


def draw(runs: Sequence[dict[str, Any]], path: Path) -> bool:
    """False without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    from matplotlib import pyplot

    rates = list(dict.fromkeys(run["rate"] for run in runs))
    names = [name for name in BY_NAME if any(run["contestant"] == name for run in runs)]
    styles = _styles(names)
    figure, axes = pyplot.subplots(
        len(rates),
        2,
        figsize=(12.6, 1.2 + 4.4 * len(rates)),
        sharex="col",
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for row, rate in zip(axes, rates, strict=True):
        here = [run for run in runs if run["rate"] == rate]
        for axis, quantity in zip(row, ("seconds", "bytes"), strict=True):
            for name in names:
                if own := [run for run in here if run["contestant"] == name]:
                    x, accuracies = curve(own, quantity)
                    scale = 1e-6 if quantity == "bytes" else 1
                    axis.plot([v * scale for v in x], [1 - a for a in accuracies], label=name, **styles[name])
                    there = [v * scale for v in arrivals(own, quantity)]
                    axis.plot(there, [1 - TARGET] * len(there), "o", ms=5, color=styles[name]["color"], zorder=4)
            _dress(axis)
        row[0].set_title(f"links of {_spoken(rate)}", loc="left", fontsize=11, color=INK, fontweight="bold")
        row[0].set_ylabel("test accuracy", color=INK)
        row[1].legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.01, 0.5), labelcolor="linecolor")
    axes[-1][0].set_xlabel("seconds of training", color=INK)
    axes[-1][1].set_xlabel("MB sent by a rank", color=INK)
    hosts, parameters = runs[0]["hosts"], runs[0]["parameters"]
    seeds = len({run["seed"] for run in runs})
    over = f"lines: mean of {seeds} seeds, as far as all go; dots: each seed at 97 %" if seeds > 1 else "one seed"
    figure.suptitle(
        f"Handwritten digits, {parameters / 1e6:.1f} M parameters, {hosts} hosts; {over}",
        x=0.01,
        ha="left",
        fontsize=13,
        fontweight="bold",
        color=INK,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=140)
    pyplot.close(figure)
    return True


def _styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Dense Gloo grey, its hooks warm and thin, pycoll cool and thick."""
    warm, cool = iter(GLOO * 2), iter(PYCOLL * 2)
    styles: dict[str, dict[str, Any]] = {}
    for name in names:
        if name == DENSE:
            styles[name] = {"color": GREY, "linewidth": 2.6, "zorder": 1}
        elif BY_NAME[name].library == "gloo":
            styles[name] = {"color": next(warm), "linewidth": 1.5, "zorder": 2}
        else:
            styles[name] = {"color": next(cool), "linewidth": 2.2, "zorder": 3}
    return styles


def _dress(axis: Any) -> None:
    """The error on a logarithmic axis upside down, labelled as accuracy: the last per cents are what it is about."""
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_ylim(0.95, 0.008)
    axis.set_yticks([1 - tick for tick in TICKS], [f"{tick:.0%}" for tick in TICKS])
    axis.minorticks_off()
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.axhline(1 - TARGET, color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    axis.grid(color="#e6eaee", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.tick_params(labelbottom=True, colors=INK, labelsize=9)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def _spoken(rate: str) -> str:
    return f"{rate[:-4]} {rate[-4].upper() if rate[-4] == 'g' or rate[-4] == 'm' else rate[-4]}bit/s"
