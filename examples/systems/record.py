"""What a rank knows of a training when it has ended."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch


@dataclass
class Record:
    """`busy` is the part of `seconds` in which the rank computed; snapshots are (seconds, parameters side by side)."""

    seconds: float = 0.0  # from the first step until all ranks have the same model
    busy: float = 0.0
    samples: int = 0  # 0 for a rank that only serves
    sent: int = 0  # bytes
    snapshots: list[tuple[float, torch.Tensor]] = field(default_factory=list)
