"""Values of each key, and the function that reduces them."""

from __future__ import annotations

import collections
import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator
from types import GeneratorType
from typing import Any

from .._core import Spool
from ..errors import Error, InvalidArgument

Reducer = Callable[[Any, Iterator[Any]], Any]
FREQUENT = 10  # keys that are told of


class _Values:
    """An iterator over a key's values that counts, and calls `check` for each."""

    def __init__(self, group: Iterator[tuple[Any, Any]], check: Callable[[], None]) -> None:
        self._group, self._check, self.count = group, check, 0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        self._check()
        _, value = next(self._group)
        self.count += 1
        return value


def reduce_groups(
    pairs: Iterable[tuple[Any, Any]], reducer: Reducer, spool: Spool, check: Callable[[], None]
) -> list[tuple[Any, int]]:
    """What `reducer` makes of each key's values, into `spool`; equal keys in `pairs` are one object, side by side.

    check: called for each value and each result. Returns: the most frequent keys, with their numbers of values.
    """
    counts: list[tuple[int, int, Any]] = []  # values, tie-break, key
    tie = itertools.count()
    for key, group in itertools.groupby(pairs, key=lambda pair: pair[0]):
        values = _Values(group, check)
        check()
        for its_key, result in _results(reducer, key, values):
            check()
            _put(spool, its_key, result)
        collections.deque(values, 0)  # what it did not look at counts as well
        entry = (values.count, next(tie), key)
        if len(counts) < FREQUENT:
            heapq.heappush(counts, entry)
        elif entry > counts[0]:
            heapq.heapreplace(counts, entry)
    return [(key, count) for count, _, key in counts]


def _results(reducer: Reducer, key: Any, values: Iterator[Any]) -> Iterator[tuple[Any, Any]]:
    """Pairs: one of what it returns, or those that it yields."""
    try:
        result = reducer(key, values)
    except StopIteration as error:
        raise Error(f"mapreduce: reduce raised StopIteration for key {key!r}") from error
    if not isinstance(result, GeneratorType):
        yield key, result
        return
    for pair in result:
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise InvalidArgument(f"mapreduce: reduce yielded {pair!r} for key {key!r}, wanted pairs of key and value")
        yield pair


def _put(spool: Spool, key: Any, result: Any) -> None:
    if isinstance(result, Iterator):
        raise InvalidArgument(f"mapreduce: the result of key {key!r} is an iterator, wanted its values, list() of it")
    try:
        spool.put(key, result)
    except InvalidArgument:
        raise
    except Exception as error:
        raise InvalidArgument(f"mapreduce: the result of key {key!r} cannot be kept: {error}") from error
