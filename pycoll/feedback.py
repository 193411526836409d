"""What compression left behind for the next step of the same array."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import _core
from .errors import InvalidArgument


class Feedback(_core.Feedback):
    """Error feedback of one array, or of one list of arrays: what is lost in a step is added in the next one.

    ::

        feedback = pycoll.Feedback(x)
        for ...:
            comm.allreduce(x, codec=pycoll.TopK(0.01), feedback=feedback)

    like: an array with as many elements as will be reduced, or their number. A torch tensor gets a torch residual,
    anything else a NumPy one. dtype: "fp32", or "bf16" (torch only) for half the memory, rounded at each step.
    residual: the residual itself, float32 or bfloat16, used in place; then `like` is not looked at.

    `residual` may be read and changed between operations. `report` says how the last one went: seconds in encode, wire
    and decode, wire bytes sent, elements `sent` by this rank and `kept` in the result.
    """

    def __init__(self, like: Any = None, *, residual: Any = None, dtype: str = "fp32") -> None:
        self.residual = _zeros(like, dtype) if residual is None and like is not None else residual
        self.factors: dict[str, Any] = {}  # of PowerSGD
        self._noted: dict[str, Any] | None = None
        super().__init__(self.residual)

    @property
    def report(self) -> dict[str, Any]:
        """How the last operation went on this rank."""
        return dict(super().report) if self._noted is None else dict(self._noted)

    def note(self, report: dict[str, Any]) -> None:
        """Used by codecs that are not the core's."""
        self._noted = report


def _zeros(like: Any, dtype: str) -> Any:
    if dtype not in ("fp32", "bf16"):
        raise InvalidArgument(f"Feedback: dtype is {dtype!r}, wanted fp32 or bf16")
    arrays = like if isinstance(like, (list, tuple)) else [like]
    if not arrays or (isinstance(like, int) and like < 0):
        raise InvalidArgument(f"Feedback: like is {like!r}, wanted an array, a list of them, or a number of elements")
    count = like if isinstance(like, int) else sum(int(np.prod(np.shape(x), dtype=np.int64)) for x in arrays)
    if dtype == "bf16" or hasattr(arrays[0], "data_ptr"):
        import torch

        return torch.zeros(count, dtype=torch.bfloat16 if dtype == "bf16" else torch.float32)
    return np.zeros(count, np.float32)
