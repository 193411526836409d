"""Who takes part: torch DDP over Gloo with its hooks, pycoll's optimizer with its codecs, and its local methods."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Contestant:
    """`how` names a hook of torch's or a codec of pycoll's, "" for neither; `options` are its keyword arguments.

    `local` names a local method of pycoll's, "" for training in step. Its ranks agree every `agree` steps, and have a
    common model to be examined only then. `adamw` is the highest learning rate of AdamW, which takes the place of the
    task's SGD; 0 for SGD.
    """

    name: str
    library: str  # "gloo" or "pycoll"
    how: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    local: str = ""
    agree: int = 1
    adamw: float = 0.0

    def missing(self) -> str:
        """What this pycoll lacks for it, as one sentence; empty if nothing."""
        if self.library == "gloo":
            return ""
        import pycoll

        lacking = [name for name in (self.how, self.local) if name and not hasattr(pycoll, name)]
        return f"this pycoll has no {lacking[0]}" if lacking else ""


CONTESTANTS = (
    Contestant("gloo", "gloo"),
    Contestant("gloo-bf16", "gloo", "bf16"),
    Contestant("gloo-fp16", "gloo", "fp16"),
    Contestant("gloo-powersgd-1", "gloo", "powersgd", {"matrix_approximation_rank": 1}),
    Contestant("gloo-powersgd-2", "gloo", "powersgd", {"matrix_approximation_rank": 2}),
    Contestant("gloo-powersgd-4", "gloo", "powersgd", {"matrix_approximation_rank": 4}),
    Contestant("pycoll", "pycoll"),
    Contestant("pycoll-bf16", "pycoll", "Cast", {"to": "bf16"}),
    Contestant("pycoll-int8", "pycoll", "Int8"),
    Contestant("pycoll-int4", "pycoll", "Int4"),
    Contestant("pycoll-sign", "pycoll", "Sign"),
    Contestant("pycoll-topk-1%", "pycoll", "TopK", {"ratio": 0.01}),
    Contestant("pycoll-topk-0.1%", "pycoll", "TopK", {"ratio": 0.001}),
    Contestant("pycoll-topk-2%-int8", "pycoll", "TopK", {"ratio": 0.02, "values": "int8"}),
    Contestant("pycoll-topk-5%-int8", "pycoll", "TopK", {"ratio": 0.05, "values": "int8"}),
    Contestant("pycoll-topk-10%-int4", "pycoll", "TopK", {"ratio": 0.1, "values": "int4"}),
    Contestant("pycoll-randomk-1%", "pycoll", "RandomK", {"ratio": 0.01}),
    Contestant("pycoll-powersgd-2", "pycoll", "PowerSGD", {"rank": 2}),
    Contestant("pycoll-powersgd-4", "pycoll", "PowerSGD", {"rank": 4}),
    Contestant("pycoll-localsgd-10", "pycoll", local="LocalSGD", agree=10),
    Contestant("pycoll-diloco-10-int4", "pycoll", "Int4", local="DiLoCo", agree=10, adamw=1e-3),
    Contestant("pycoll-diloco-20", "pycoll", local="DiLoCo", agree=20, adamw=2e-3),
    Contestant("pycoll-diloco-20-int4", "pycoll", "Int4", local="DiLoCo", agree=20, adamw=2e-3),
)
BY_NAME = {contestant.name: contestant for contestant in CONTESTANTS}
