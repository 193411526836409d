"""Optimizer state of whole parameters and of pieces of them, each made from the other."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch

from .buckets import view_of
from .errors import InvalidArgument

State = dict[str, Any]  # of one parameter, as in torch's state_dict()["state"]
Part = tuple[int, int, State]  # state of elements begin to end of a parameter, in the order of memory


def assemble(parts: Sequence[Part], name: str, parameter: torch.Tensor, begin: int, end: int) -> State:
    """State of elements `begin` to `end`, copied from parts that have them; {} if there are no parts.

    Tensors with one element for each of the parameter's are cut and joined. Anything else, a number of steps for
    example, is the same in every part.
    """
    whole = (begin, end) == (0, parameter.numel())
    state: State = {}
    for key, value in parts[0][2].items() if parts else ():
        if not _follows(value, parts[0], parameter):
            if isinstance(value, torch.Tensor) and value.dim() and not whole:
                raise InvalidArgument(
                    f"'{key}' of parameter '{name}' is not of the parameter's shape, so the state of a part of it "
                    'cannot be told; use ShardedOptimizer(split="parameters")'
                )
            state[key] = copy.deepcopy(value)
            continue
        flat, missing = value.new_empty(end - begin), end - begin
        for part in parts:
            first, last = max(begin, part[0]), min(end, part[1])
            if first < last:
                flat[first - begin : last - begin] = _flatten(part, key, parameter)[first - part[0] : last - part[0]]
                missing -= last - first
        if missing:
            raise InvalidArgument(
                f"load_state_dict: no state of {missing} elements of parameter '{name}', which are of other ranks; "
                "pass a list of all ranks' states, or a full one"
            )
        state[key] = view_of(flat, 0, parameter) if whole else flat
    return state


def _follows(value: Any, part: Part, parameter: torch.Tensor) -> bool:
    begin, end, _ = part
    shape = parameter.shape if (begin, end) == (0, parameter.numel()) else torch.Size([end - begin])
    return isinstance(value, torch.Tensor) and value.shape == shape


def _flatten(part: Part, key: str, parameter: torch.Tensor) -> torch.Tensor:
    value: torch.Tensor = part[2][key]
    if (part[0], part[1]) != (0, parameter.numel()):
        return value
    flat = value.new_empty(value.numel())
    view_of(flat, 0, parameter).copy_(value)
    return flat


def by_parameter(ranks: Sequence[dict[int, Part]]) -> dict[int, list[Part]]:
    """What ranks have of each parameter, where they have state at all."""
    parts: dict[int, list[Part]] = {}
    for own in ranks:
        for index, part in own.items():
            if part[2]:
                parts.setdefault(index, []).append(part)
    return parts


def check_saved(states: Sequence[dict[str, Any]], mine: dict[str, Any]) -> None:
    """Raises InvalidArgument unless the rank whose state_dict() is `mine` finds all that it needs in `states`."""
    saved = states[0]
    got, wanted = ([len(group["params"]) for group in state["param_groups"]] for state in (saved, mine))
    if got != wanted:
        raise InvalidArgument(f"load_state_dict: got groups of {got} parameters, wanted {wanted}")
    if "shards" not in saved or [state["rank"] for state in states] == list(range(saved["ranks"])):
        return
    ranges = [{i: part[:2] for i, part in state["shards"].items()} for state in (saved, mine)]
    same = all(saved[key] == mine[key] for key in ("rank", "ranks"))
    if len(states) > 1 or not same or ranges[0] != ranges[1]:
        raise InvalidArgument(
            f"load_state_dict: rank {mine['rank']} of {mine['ranks']} got the state of rank "
            f"{', '.join(str(state['rank']) for state in states)} of {saved['ranks']}, or of other buckets; "
            "pass a list of all ranks' states, in rank order, or a full one"
        )
