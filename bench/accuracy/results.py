"""From runs to figures, and the file that partial runs are merged into."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from .contestants import BY_NAME
from .task import TARGET, Task

SCHEMA = "pycoll-time-to-accuracy/1"
KEY = ("contestant", "seed", "rate", "hosts")


@dataclass(frozen=True)
class Figure:
    """A contestant at one rate, over its seeds. Lists have an entry a seed; None where the target was not reached."""

    contestant: str
    seeds: list[int]
    seconds: list[float | None]
    steps: list[int | None]
    sent: list[float | None]  # bytes until then, a rank
    final: list[float]  # accuracy after all steps, of the runs that went so far
    step_seconds: float
    compute_seconds: float
    step_bytes: float
    ranks_agree: bool

    @property
    def median(self) -> float | None:
        """Seconds to the target; None if a seed did not reach it."""
        return None if None in self.seconds else statistics.median(s for s in self.seconds if s is not None)


def figures_of(runs: Sequence[dict[str, Any]], task: Task) -> list[Figure]:
    """Of the runs of one rate, the fastest contestant last reached first."""
    figures = []
    for name in dict.fromkeys(run["contestant"] for run in runs):
        own = [run for run in runs if run["contestant"] == name]
        reached = [_reached(run) for run in own]
        figures.append(
            Figure(
                contestant=name,
                seeds=[run["seed"] for run in own],
                seconds=[None if i is None else sum(r["seconds"][: i + 1]) for i, r in zip(reached, own, strict=True)],
                steps=[None if i is None else (i + 1) * task.every for i in reached],
                sent=[None if i is None else sum(r["bytes"][: i + 1]) for i, r in zip(reached, own, strict=True)],
                final=[r["accuracies"][-1] for r in own if len(r["accuracies"]) == task.steps // task.every],
                step_seconds=_per_step(own, "seconds", task),
                compute_seconds=statistics.median(run["compute_seconds"] for run in own),
                step_bytes=_per_step(own, "bytes", task),
                ranks_agree=all(run["ranks_agree"] for run in own),
            )
        )
    return figures


def _reached(run: dict[str, Any]) -> int | None:
    """Number of the first evaluation that reaches the target."""
    return next((i for i, a in enumerate(run["accuracies"]) if a >= TARGET), None)


def arrivals(runs: Sequence[dict[str, Any]], quantity: str) -> list[float]:
    """Time or bytes until the target, of each run that reached it."""
    reached = [(run, _reached(run)) for run in runs]
    return [sum(run[quantity][: i + 1]) for run, i in reached if i is not None]


def _per_step(runs: Sequence[dict[str, Any]], quantity: str, task: Task) -> float:
    """The median over seeds and intervals: what a hook does in its first steps does not show. An interval is that of
    the evaluations, or from one agreement of a local method to the next."""
    joined = max(1, BY_NAME[runs[0]["contestant"]].agree // task.every)
    parts = [run[quantity][i : i + joined] for run in runs for i in range(0, len(run[quantity]), joined)]
    return statistics.median(sum(part) / len(part) / task.every for part in parts)


def curve(runs: Sequence[dict[str, Any]], quantity: str) -> tuple[list[float], list[float]]:
    """Mean time or bytes, and mean accuracy, at each evaluation that every seed came to."""
    evaluations = min(len(run["accuracies"]) for run in runs)
    along = [list(accumulate(run[quantity])) for run in runs]
    x = [statistics.mean(line[i] for line in along) for i in range(evaluations)]
    return x, [statistics.mean(run["accuracies"][i] for run in runs) for i in range(evaluations)]


def load(path: Path, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Runs of an earlier call with the same settings."""
    if not path.exists():
        return []
    document = json.loads(path.read_text())
    if document.get("schema") != SCHEMA or document["settings"] != settings:
        raise ValueError(f"{path} holds results of other settings: {document.get('settings')}")
    return list(document["runs"])


def merge(runs: list[dict[str, Any]], run: dict[str, Any]) -> None:
    """Adds a run, in the place of an earlier one of the same contestant, seed, rate and hosts."""
    key = [run[name] for name in KEY]
    runs[:] = [other for other in runs if [other[name] for name in KEY] != key] + [run]


def save(path: Path, environment: dict[str, Any], settings: dict[str, Any], runs: list[dict[str, Any]]) -> None:
    head = {"schema": SCHEMA, "environment": environment, "settings": settings, "runs": []}
    lines = ",\n".join(json.dumps(run) for run in runs)  # a line a run
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(head, indent=1).replace('"runs": []', f'"runs": [\n{lines}\n ]') + "\n")
