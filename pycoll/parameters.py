"""What an optimizer's parameters must be, and how errors call them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

import pycoll
from pycoll.buckets import Named, is_dense

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128)


def check_optimizer(optimizer: Any, wrapper: type) -> None:
    """Raises InvalidArgument for what cannot be wrapped."""
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise pycoll.InvalidArgument(f"optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}")
    if isinstance(optimizer, wrapper):
        raise pycoll.InvalidArgument(f"optimizer is a {type(optimizer).__name__} already")
    if isinstance(optimizer, torch.optim.SparseAdam):
        raise pycoll.InvalidArgument("SparseAdam takes sparse gradients only, but means over ranks are dense; use Adam")


def check_parameters(named: list[Named], owners: Mapping[int, Callable[[], object]]) -> None:
    """Raises InvalidArgument for what cannot be averaged, or is averaged already, by its id, by one of `owners`."""
    for name, parameter in named:
        if parameter.device.type != "cpu":
            raise pycoll.InvalidArgument(f"parameter '{name}' is on {parameter.device}; only the CPU is supported")
        if parameter.dtype not in DTYPES:
            raise pycoll.InvalidArgument(f"parameter '{name}' has dtype {parameter.dtype}, which cannot be averaged")
        if id(parameter) in owners:
            owner = type(owners[id(parameter)]()).__name__
            raise pycoll.InvalidArgument(f"parameter '{name}' belongs to another {owner}; close() it first")


def check_no_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Raises InvalidArgument if momentum would be counted twice."""
    for g, group in enumerate(optimizer.param_groups):
        if group.get("momentum"):
            raise pycoll.InvalidArgument(
                f"group {g} of the wrapped {type(optimizer).__name__} has momentum {group['momentum']}, and so has the "
                "Compression: give it to one of them only"
            )


def describe(parameter: torch.Tensor) -> str:
    """ "float32[3, 4]": what ranks must have alike."""
    text = f"{str(parameter.dtype).removeprefix('torch.')}{list(parameter.shape)}"
    if is_dense(parameter) and not parameter.is_contiguous():
        text += f" with strides {list(parameter.stride())}"
    return text if parameter.requires_grad else text + " (frozen)"


def check_named(named_parameters: Iterable[Named] | None) -> list[Named]:
    """The pairs, each name once. Raises InvalidArgument."""
    if named_parameters is None:
        return []
    if isinstance(named_parameters, dict):
        named_parameters = named_parameters.items()
    named: list[Named] = []
    for entry in named_parameters:
        if not (isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[0], str)):
            raise pycoll.InvalidArgument(
                f"named_parameters must give (name, parameter) pairs, got {type(entry).__name__}; "
                "pass model.named_parameters()"
            )
        if not isinstance(entry[1], torch.Tensor):
            raise pycoll.InvalidArgument(
                f"named_parameters gives '{entry[0]}' a {type(entry[1]).__name__}, not a tensor"
            )
        named.append(entry)
    if not named:
        raise pycoll.InvalidArgument("named_parameters is empty (an iterator that was used up?)")
    by_name: dict[str, torch.Tensor] = {}
    for name, parameter in named:
        if by_name.setdefault(name, parameter) is not parameter:
            raise pycoll.InvalidArgument(f"named_parameters gives the name '{name}' to two parameters")
    return named
