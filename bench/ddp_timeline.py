"""A picture of one training step of each contestant: what a rank computes, and which buckets travel meanwhile."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import ddp_hooks
import torch
import torch.distributed as dist

STEPS = 9  # the last ones are looked at: DDP makes its buckets anew after the first
LOOKED_AT = 5
PHASES = {"forward": "#b9c4cc", "backward": "#8a97a3", "optimizer": "#dde3e8"}
BUCKET, INK = "#0b5fa5", "#22303c"
LANE = 2.6  # from rank to rank


def record_and_draw(contestants: list[Any], x: torch.Tensor, path: Path) -> None:
    """Collective. Of each contestant the step of median length, among the last few."""
    lanes = []
    for contestant in contestants:
        steps = []
        for _ in range(STEPS):
            ddp_hooks.noted[contestant.name].clear()
            moments = contestant.step(x)
            steps.append({"phases": moments, "buckets": [list(s) for s in ddp_hooks.noted[contestant.name]]})
        every: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(every, steps[-LOOKED_AT:])
        steps = [list(step) for step in zip(*every, strict=True)]  # by step, then by rank
        steps.sort(key=lambda ranks: max(r["phases"][-1] for r in ranks) - min(r["phases"][0] for r in ranks))
        lanes.append((contestant.name, steps[len(steps) // 2]))
    if dist.get_rank() == 0:
        _draw(lanes, path)


def _draw(lanes: list[tuple[str, list[dict[str, Any]]]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        len(lanes), 1, figsize=(10, 0.5 + 1.5 * len(lanes)), sharex=True, squeeze=False, layout="constrained"
    )
    for axis, (name, ranks) in zip(axes[:, 0], lanes, strict=True):
        begin = min(rank["phases"][0] for rank in ranks)
        for r, rank in enumerate(ranks):
            moments = [(moment - begin) * 1e3 for moment in rank["phases"]]
            for (phase, colour), (left, right) in zip(PHASES.items(), pairwise(moments), strict=True):
                axis.barh(LANE * r, right - left, 0.9, left, color=colour, label=None if r else phase)
            free_from: list[float] = []  # of each row: a bucket may begin before the one before it has ended
            for span in rank["buckets"]:
                left, right = ((moment - begin) * 1e3 for moment in span)
                row = next((row for row, free in enumerate(free_from) if free <= left), len(free_from))
                free_from[row : row + 1] = [right]
                label = None if r or span is not rank["buckets"][0] else "a bucket's allreduce"
                axis.barh(LANE * r + 0.65 + 0.35 * row, right - left, 0.3, left, color=BUCKET, label=label)
        axis.set_title(name, loc="left", fontsize=10, color=INK, fontweight="bold")
        axis.set_yticks([LANE * r + 0.2 for r in range(len(ranks))], [f"rank {r}" for r in range(len(ranks))])
        axis.invert_yaxis()
        for side in ("top", "right", "left"):
            axis.spines[side].set_visible(False)
        axis.tick_params(axis="y", length=0)
    axes[0, 0].legend(frameon=False, fontsize=9, ncols=4, loc="lower right", bbox_to_anchor=(1, 1))
    axes[-1, 0].set_xlabel("milliseconds from the beginning of the step")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
