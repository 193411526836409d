"""The table: a line a contestant."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from .results import Figure
from .task import TARGET

DENSE = "gloo"  # what the others are compared with


def table(figures: Sequence[Figure], title: str) -> str:
    dense = next((figure.median for figure in figures if figure.contestant == DENSE), None)
    head = f"{'':22}{f'seconds to {TARGET:.0%}':>23}{'× gloo':>8}{'MB':>8}{'steps':>9}{'final accuracy':>23}"
    head += f"{'KB a step':>11}{'ms a step':>11}{'= compute + rest':>18}"
    return "\n".join([title, head, *(_line(figure, dense) for figure in figures)])


def _line(figure: Figure, dense: float | None) -> str:
    times = "not reached"
    if figure.median is not None:
        reached = [seconds for seconds in figure.seconds if seconds is not None]
        times = f"{figure.median:.2f} ({min(reached):.2f}–{max(reached):.2f})"
    elif any(figure.seconds):
        times = f"by {sum(s is not None for s in figure.seconds)} of {len(figure.seconds)} seeds"
    factor = f"{dense / figure.median:.1f}" if dense and figure.median else "–"
    sent = f"{statistics.median(n for n in figure.sent if n is not None) / 1e6:.1f}" if figure.median else "–"
    steps = [step for step in figure.steps if step is not None]
    between = f"{min(steps)}–{max(steps)}" if steps else "–"
    final = "–"
    if figure.final:
        low, high = min(figure.final), max(figure.final)
        final = f"{statistics.mean(figure.final):.2%} ({low:.1%}–{high:.1%})"
    whole, compute = figure.step_seconds * 1e3, figure.compute_seconds * 1e3
    line = (
        f"{figure.contestant:22}{times:>23}{factor:>8}{sent:>8}{between:>9}{final:>23}{figure.step_bytes / 1e3:11,.1f}"
    )
    line += f"{whole:11.1f}{f'{compute:.1f} + {whole - compute:.1f}':>18}"
    return line + ("" if figure.ranks_agree else "   ranks end with different weights")
