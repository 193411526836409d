"""What map gives: pairs of key and value, and those that combine folds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..errors import Error, InvalidArgument

Pairs = Iterable[tuple[Any, Any]]
_KEYS = 65536  # that combine folds before they are collected


def mapped(map: Callable[[Any], Pairs], records: Iterable[Any], check: Callable[[], None]) -> Iterator[Pairs]:
    """What `map` gives for each record, with a call of `check` before it."""
    for record in records:
        check()
        try:
            pairs = map(record)
        except StopIteration as error:
            raise Error("mapreduce: map raised StopIteration") from error
        if not hasattr(pairs, "__iter__"):
            raise InvalidArgument(f"mapreduce: map gave {pairs!r} for a record, wanted an iterable of pairs")
        yield pairs


def combined(pairs: Pairs, combine: Callable[[Any, Any], Any]) -> Iterator[tuple[Any, Any]]:
    """Pairs with those of equal keys folded, as far as some tens of thousands of keys go."""
    values: dict[Any, Any] = {}
    for pair in pairs:
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise InvalidArgument(f"mapreduce: map gave {pair!r}, wanted pairs of key and value")
        key, value = pair
        try:
            known = key in values
        except TypeError:
            raise InvalidArgument(
                f"mapreduce: got a key of type {type(key).__name__}, wanted str, bytes, int, float or a tuple of these"
            ) from None
        if known:
            values[key] = combine(values[key], value)
        else:
            if len(values) == _KEYS:
                yield from values.items()
                values.clear()
            values[key] = value
    yield from values.items()
