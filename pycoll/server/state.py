"""An optimizer's options, and its state in pieces."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch

from ..errors import InvalidArgument
from .pieces import Piece


def options_of(group: dict[str, Any]) -> dict[str, Any]:
    """What an optimizer's group says but for its parameters."""
    return {key: value for key, value in group.items() if key not in ("params", "param_names")}


def cut_state(state: dict[str, Any], piece: Piece, parameter: torch.Tensor) -> dict[str, Any]:
    """The state of a piece: rows of what has the parameter's shape, in float32 at least; all else as it is.

    Of a scalar, a number for each of its elements and one for the whole tensor (`step`) are cut alike: to themselves.
    Raises what check_cut raises.
    """
    check_cut(state, piece, parameter)

    def part(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
            half = value.is_floating_point() and value.element_size() < 4  # torch loads state in the parameter's type
            return piece.of(value).to(torch.float32 if half else value.dtype, copy=True)
        return copy.deepcopy(value)

    return {key: part(value) for key, value in state.items()}


def check_cut(state: dict[str, Any], piece: Piece, parameter: torch.Tensor) -> None:
    """Raises InvalidArgument for numbers of which a part belongs to the piece, and nobody knows which."""
    if piece.of(parameter).shape != parameter.shape:
        _check_known(state, parameter.shape)


def join_state(parameter: torch.Tensor, parts: Sequence[tuple[Piece, dict[str, Any]]]) -> dict[str, Any]:
    """The state of a parameter from that of its pieces. Raises InvalidArgument as check_cut does."""
    first, state = parts[0]
    shape = first.of(parameter).shape
    if len(parts) > 1:
        _check_known(state, shape)
    joined = dict(state)
    for key, value in state.items():
        if isinstance(value, torch.Tensor) and value.dim() and value.shape == shape:
            joined[key] = torch.zeros(parameter.shape, dtype=value.dtype)
            for piece, own in parts:
                piece.of(joined[key]).copy_(own[key])
    return joined


def _check_known(state: dict[str, Any], shape: torch.Size) -> None:
    for key, value in state.items():
        if isinstance(value, torch.Tensor) and value.shape != shape and value.numel() > 1:
            raise InvalidArgument(
                f"parameter server: '{key}' of the optimizer's state is {list(value.shape)}, wanted {list(shape)} or "
                "one number; with piece_bytes as large as the parameter it is not cut"
            )
