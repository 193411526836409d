"""Failures say what they interrupted, where the operation that they name is an older one of another call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .errors import PeerFailed, Timeout


@contextmanager
def during(what: str) -> Iterator[None]:
    """PeerFailed and Timeout that leave the block open with `what`; their classes and attributes stay."""
    try:
        yield
    except PeerFailed as error:
        raise PeerFailed(f"{what}: {error}", error.rank, error.host, error.operation) from error
    except Timeout as error:
        raise Timeout(f"{what}: {error}") from error


__all__ = ["during"]
