"""Failures say what they interrupted, where the operation that they name is an older one of another call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .errors import Error, PeerFailed, Timeout


@contextmanager
def during(what: str, kinds: tuple[type[Error], ...] = (PeerFailed, Timeout)) -> Iterator[None]:
    """Errors of these kinds that leave the block open with `what`; their classes and attributes stay."""
    try:
        yield
    except kinds as error:
        if isinstance(error, PeerFailed):
            raise PeerFailed(f"{what}: {error}", error.rank, error.host, error.operation) from error
        raise type(error)(f"{what}: {error}") from error


__all__ = ["during"]
