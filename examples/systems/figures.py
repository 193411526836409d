"""From the ranks' records to a system's figures: a table of them, and a file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import numpy as np
import torch

from .task import accuracy

SCHEMA = "pycoll-compare-systems/1"


@dataclass
class Figure:
    """A system, dense or with a codec. Accuracies are on the test set, of the model that all ranks have in common."""

    system: str
    codec: str  # "" for none
    seconds: float  # in all: from the first step until all ranks have the same model
    reached: float | None  # seconds until the target accuracy; None: not reached
    accuracy: float  # at the end
    samples: int  # of all ranks
    rate: float  # samples a second
    sent: float  # bytes, mean over ranks
    communication: float  # part of the time, mean over the ranks that train
    efficiency: float  # rate / ranks / rate of one rank alone
    curve: list[tuple[float, float]]  # (seconds, accuracy)

    @property
    def label(self):
        return f"{self.system}, {self.codec}" if self.codec else self.system


def gather(comm, system, codec, record, task, data, target):
    """Of all ranks' records, on rank 0 a Figure (its efficiency is not known yet), elsewhere None. Collective."""
    snapshots = record.snapshots
    if not system.common:  # then all ranks have equally many
        times = comm.allreduce(np.array([seconds for seconds, _ in snapshots]), op="max")
        means = comm.allreduce(torch.stack([parameters for _, parameters in snapshots]), op="avg")
        snapshots = list(zip(times.tolist(), means, strict=True))
    mine = np.array([record.seconds, record.busy, record.samples, record.sent])
    seconds, busy, samples, sent = comm.allgather(mine).reshape(comm.size, 4).T
    if comm.rank != 0:
        return None
    model, (x, y) = task.build(), data[2:]
    curve = [(time, accuracy(model, parameters, x, y)) for time, parameters in snapshots]
    trained = samples > 0
    return Figure(
        system=system.name,
        codec=codec,
        seconds=float(seconds.max()),
        reached=next((time for time, value in curve if value >= target), None),
        accuracy=curve[-1][1],
        samples=int(samples.sum()),
        rate=float(samples.sum() / seconds.max()),
        sent=float(sent.sum() / comm.size),
        communication=float(np.mean(1 - busy[trained] / seconds[trained])),
        efficiency=float("nan"),
        curve=curve,
    )


def table(figures, target):
    titles = {f"to {target:.0%}": 9, "seconds": 9, "samples/s": 11, "accuracy": 10, "kB sent": 10, "× fewer": 9}
    titles |= {"communication": 15, "efficiency": 12}
    lines = [f"{'':26}" + "".join(f"{title:>{width}}" for title, width in titles.items())]
    dense = next((figure.sent for figure in figures if figure.sent), 0)
    for f in figures:
        reached = "–" if f.reached is None else f"{f.reached:.2f}"
        fewer = f"{dense / f.sent:.1f}" if f.sent else "–"
        line = f"{f.label:26}{reached:>9}{f.seconds:9.2f}{f.rate:11,.0f}{f.accuracy:10.2%}{f.sent / 1e3:10,.0f}"
        lines.append(line + f"{fewer:>9}{f.communication:15.0%}{f.efficiency:12.0%}")
    return "\n".join(lines)


def save(path, settings, figures):
    document = {"schema": SCHEMA, "settings": settings, "systems": [asdict(figure) for figure in figures]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")
