"""Who takes part: torch DDP over Gloo with its communication hooks, and pycoll's optimizer with its codecs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Contestant:
    """`how` names a hook of torch's or a codec of pycoll's, "" for neither; `options` are its keyword arguments."""

    name: str
    library: str  # "gloo" or "pycoll"
    how: str = ""
    options: dict[str, Any] = field(default_factory=dict)

    def missing(self) -> str:
        """What this pycoll lacks for it, as one sentence; empty if nothing."""
        if self.library == "gloo" or not self.how:
            return ""
        import pycoll

        return "" if hasattr(pycoll, self.how) else f"this pycoll has no codec {self.how}"


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
)
BY_NAME = {contestant.name: contestant for contestant in CONTESTANTS}
