"""Do all ranks hold the same? A hash tells in one small allgather; only where it differs does the text travel."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

import pycoll

from .objects import allgather

if TYPE_CHECKING:
    from pycoll.comm import Communicator

SEPARATOR = "\x1f"


def check_agreement(comm: Communicator, subject: str, facts: Sequence[tuple[str, str]]) -> None:
    """Raise the same ``MismatchError`` on every rank unless all ranks pass the same facts. Collective.

    Args:
        comm: the ranks that must agree.
        subject: opens the sentence, for example ``"DistributedOptimizer"``; compared as well.
        facts: pairs of what it is and what is so, for example ``("parameter 3", "'fc.weight' float32[10, 64]")``.
            The first pair that differs from rank 0's is named, for the lowest rank that differs.
    """
    text = SEPARATOR.join([subject, *(part for fact in facts for part in fact)]).encode()
    digest = np.frombuffer(hashlib.sha256(text).digest(), np.uint8).copy()
    digests = np.empty(comm.size * digest.size, np.uint8)
    comm.allgather(digest, digests)
    if (digests.reshape(comm.size, -1) == digest).all():
        return
    subjects, every = zip(*allgather(comm, (subject, list(facts))), strict=True)
    for rank, its in enumerate(subjects):
        if its != subjects[0]:
            raise pycoll.MismatchError(f"rank {rank} made a {its}, but rank 0 a {subjects[0]}")
    raise pycoll.MismatchError(f"{subject}: {_first_difference(every)}")


def by_value(thing: Any) -> str:
    """What something is made of, as a text that is alike on ranks that have the like: types by their names, objects by
    their fields, arrays and tensors by their numbers, functions by their names, and no addresses."""
    return _by_value(thing, ())


def _by_value(thing: Any, outer: tuple[int, ...]) -> str:
    if id(thing) in outer:
        return "..."
    outer = (*outer, id(thing))
    if isinstance(thing, Mapping):
        return "{" + ", ".join(f"{_by_value(k, outer)}: {_by_value(v, outer)}" for k, v in thing.items()) + "}"
    if isinstance(thing, (list, tuple)):
        return "[" + ", ".join(_by_value(each, outer) for each in thing) + "]"
    if isinstance(thing, (set, frozenset)):
        return "{" + ", ".join(sorted(_by_value(each, outer) for each in thing)) + "}"
    if hasattr(thing, "__qualname__"):
        return str(thing.__qualname__)
    if hasattr(thing, "tolist"):
        return _of_numbers(thing)
    if getattr(thing, "__dict__", None) or type(thing).__repr__ is object.__repr__:
        fields = ", ".join(
            f"{name}={_by_value(value, outer)}" for name, value in getattr(thing, "__dict__", {}).items()
        )
        return f"{type(thing).__name__}({fields})"
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(thing))


def _of_numbers(array: Any) -> str:
    """Of an array or a tensor; a hash stands for many numbers."""
    numbers = str(array.tolist())
    if len(numbers) > 100:
        numbers = f"numbers with hash {hashlib.sha256(numbers.encode()).hexdigest()[:12]}"
    return f"{array.dtype}{list(array.shape)} {numbers}" if array.shape else numbers


def _first_difference(every: Sequence[list[tuple[str, str]]]) -> str:
    first = every[0]
    rank = next(r for r, facts in enumerate(every) if facts != first)
    other = every[rank]
    for (what, mine), (_, its) in zip(first, other, strict=False):
        if mine != its:
            return f"{what} is {its} on rank {rank}, but {mine} on rank 0"
    shorter = min(len(first), len(other))
    longer, has, lacks = (first, 0, rank) if len(first) > len(other) else (other, rank, 0)
    what, value = longer[shorter]
    return f"{what}, {value} on rank {has}, does not exist on rank {lacks}"
