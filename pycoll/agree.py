"""Do all ranks hold the same? A hash tells in one small allgather; only where it differs does the text travel."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

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
        subject: opens the sentence, for example ``"DistributedOptimizer"``.
        facts: pairs of what it is and what is so, for example ``("parameter 3", "'fc.weight' float32[10, 64]")``.
            The first pair that differs from rank 0's is named, for the lowest rank that differs.
    """
    text = SEPARATOR.join(part for fact in facts for part in fact).encode()
    digest = np.frombuffer(hashlib.sha256(text).digest(), np.uint8).copy()
    digests = np.empty(comm.size * digest.size, np.uint8)
    comm.allgather(digest, digests)
    if (digests.reshape(comm.size, -1) == digest).all():
        return
    every = allgather(comm, list(facts))
    raise pycoll.MismatchError(f"{subject}: {_first_difference(every)}")


def _first_difference(every: list[list[tuple[str, str]]]) -> str:
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
