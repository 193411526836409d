"""What the arguments of a parameter server must be."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

from ..buckets import Named
from ..errors import InvalidArgument
from ..parameters import check_named, describe
from .state import options_of

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_GRADIENTS = (*_DTYPES, torch.float64)
_WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def ranks_of(what: str, given: Any, size: int) -> list[int]:
    """The ranks that an argument means, in order; None: all. Raises InvalidArgument."""
    try:
        ranks = list(range(size) if given is None else given)
        whole = sorted({operator.index(rank) for rank in ranks})
    except TypeError:
        ranks = whole = []
    if not whole or whole[0] < 0 or whole[-1] >= size or any(isinstance(rank, bool) for rank in ranks):
        raise InvalidArgument(
            f"ParameterServer: {what} is {given!r}, wanted a list of ranks from 0 to {size - 1}, at least one"
        )
    return whole


def named_of(optimizer: torch.optim.Optimizer, named_parameters: Iterable[Named]) -> list[Named]:
    """The optimizer's parameters with their names. Raises InvalidArgument."""
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise InvalidArgument(f"optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}")
    own = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    first: dict[int, Named] = {}  # of tied parameters, the first name holds
    for name, parameter in check_named(named_parameters):
        if id(parameter) in own:
            first.setdefault(id(parameter), (name, parameter))
    named = list(first.values())
    if len(named) != len(own):
        raise InvalidArgument("ParameterServer: named_parameters lacks some of the optimizer's parameters")
    for name, parameter in named:
        if parameter.device.type != "cpu" or parameter.dtype not in _DTYPES:
            raise InvalidArgument(
                f"parameter '{name}' is {describe(parameter)} on {parameter.device}; wanted float32, float16 or "
                "bfloat16 on the CPU"
            )
    return named


def check_rebuilds(optimizer: torch.optim.Optimizer, rank: int) -> None:
    """Raises InvalidArgument for an optimizer that servers cannot build over their pieces, or not step by themselves.

    It is built here over a row of each parameter.
    """
    groups = []
    for group in optimizer.param_groups:
        rows = [(p[:1] if p.dim() else p).detach().to(torch.float32, copy=True) for p in group["params"]]
        groups.append({**options_of(group), "params": rows})
    kind = type(optimizer)
    try:
        kind(groups)
    except Exception as error:
        raise InvalidArgument(
            f"ParameterServer: on rank {rank} {kind.__name__} cannot be built over pieces of the parameters ({error}); "
            "wanted a class whose constructor needs the parameters alone, and takes all else from their groups"
        ) from error
    _, *others = inspect.signature(kind.step).parameters.values()
    needed = [p.name for p in others if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if needed:
        raise InvalidArgument(
            f"ParameterServer: on rank {rank} the step() of {kind.__name__} needs {', '.join(needed)}; wanted an "
            "optimizer that needs gradients alone"
        )


def check_gradient(name: str, gradient: Any, shape: torch.Size, rank: int) -> None:
    """Raises InvalidArgument for what cannot be pushed."""
    came = type(gradient).__name__
    if isinstance(gradient, torch.Tensor):
        coo = gradient.layout == torch.sparse_coo
        if (
            (gradient.layout == torch.strided or (coo and gradient.sparse_dim() == 1))
            and gradient.device.type == "cpu"
            and gradient.dtype in _GRADIENTS
            and gradient.shape == shape
        ):
            return
        form = f"{gradient.layout} in {gradient.sparse_dim()} dimensions" if coo else gradient.layout
        came = f"{gradient.dtype}{list(gradient.shape)} ({form}, on {gradient.device})".replace("torch.", "")
    raise InvalidArgument(
        f"push: rank {rank} got for the gradient of '{name}' {came}, wanted {list(shape)} of real floats on the CPU, "
        "dense or, by rows, sparse_coo"
    )


def limits_of(rows: Mapping[str, Any], counts: Mapping[str, int], rank: int) -> dict[str, np.ndarray]:
    """Numbers of rows by name, sorted, each once. Raises InvalidArgument.

    counts: how many rows each parameter has that is pulled.
    """
    for name in rows:
        if name not in counts:
            raise InvalidArgument(f"pull: rank {rank} got rows of '{name}', which is not among the names to pull")
    return {name: _rows_of(name, given, counts[name], rank) for name, given in rows.items()}


def _rows_of(name: str, given: Any, count: int, rank: int) -> np.ndarray:
    came = type(given).__name__
    try:
        rows = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError):
        rows = None
    if rows is not None:
        came = f"{rows.dtype}{list(rows.shape)} on {rows.device}".replace("torch.", "")
        if rows.dim() == 1 and rows.device.type == "cpu" and (rows.dtype in _WHOLE or not rows.numel()):
            numbers = np.unique(rows.numpy().astype(np.int64))
            if not numbers.size or (numbers[0] >= 0 and numbers[-1] < count):
                return numbers
            came = f"numbers from {numbers[0]} to {numbers[-1]}"
    raise InvalidArgument(
        f"pull: rank {rank} got for the rows of '{name}' {came}, wanted 0 to {count - 1}, whole numbers in one "
        "dimension on the CPU"
    )
