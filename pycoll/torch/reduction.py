"""torch's reduce operations as the core's."""

from __future__ import annotations

from typing import Any

import torch
from torch.distributed import ReduceOp

from ..errors import InvalidArgument
from .loan import KNOWN

_Type = ReduceOp.RedOpType

_NAMES = {
    _Type.SUM: "sum",
    _Type.AVG: "avg",
    _Type.PRODUCT: "prod",
    _Type.MIN: "min",
    _Type.MAX: "max",
    _Type.BAND: "and",
    _Type.BOR: "or",
    _Type.BXOR: "xor",
}


def operator_of(op: Any, dtype: torch.dtype) -> dict[str, Any]:
    """The arguments that name a ReduceOp to the core: op, and factor where it has one."""
    if dtype not in KNOWN:
        raise InvalidArgument(f"a reduction of {dtype} is not defined, wanted one of {', '.join(map(str, KNOWN))}")
    kind = op.op
    if name := _NAMES.get(kind):
        return {"op": name}
    if kind == _Type.PREMUL_SUM:
        factor = op.__getstate__()[1]  # a number, or a tensor of one element
        return {"op": "premul_sum", "factor": float(factor)}
    raise InvalidArgument(f"{op} is no operation that pycoll has, wanted SUM, AVG, PRODUCT, MIN, MAX, BAND, BOR, BXOR")
