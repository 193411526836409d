"""What became of calls on another rank: their results, or what they raised."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from .parcel import Parcel

Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]
Outcome = tuple[bool, Any]  # True and the result, or False and the exception


def attempt(call: Call, retries: int, retry_on: tuple[type[Exception], ...]) -> Outcome:
    function, args, kwargs = call
    while True:
        try:
            return True, function(*args, **kwargs)
        except retry_on as error:
            if not retries:
                return False, error
            retries -= 1
        except Exception as error:
            return False, error


@dataclass
class Chunk:
    """Of some of map's calls the results, up to the one that raised `error`; the calls behind it were not made."""

    results: list[Any]
    error: Exception | None
    seconds: float

    def picklable(self) -> Chunk:
        """This, up to the first result that cannot be pickled: its error says so."""
        for i, result in enumerate(self.results):
            if error := _pickle_error(result):
                return Chunk(self.results[:i], error, self.seconds)
        return Chunk(self.results, _pickle_error(self.error) or self.error, self.seconds)


def chunk(
    function: Callable[..., Any], columns: list[Any], retries: int, retry_on: tuple[type[Exception], ...]
) -> Chunk:
    """Calls `function` with each row of the columns, one column an argument."""
    begin, results = time.perf_counter(), []
    for arguments in zip(*columns, strict=True):
        try:
            results.append(function(*arguments))
        except Exception as error:
            right, value = False, error
            if retries and isinstance(error, retry_on):
                right, value = attempt((function, arguments, {}), retries - 1, retry_on)
            if not right:
                return Chunk(results, value, time.perf_counter() - begin)
            results.append(value)
    return Chunk(results, None, time.perf_counter() - begin)


def answer(answer: tuple[float, Any]) -> Parcel:
    """Results that cannot be pickled become errors that say so."""
    try:
        return Parcel(answer)
    except Exception:
        seconds, outcomes = answer
        if isinstance(outcomes, Exception):
            return Parcel((seconds, TypeError(str(outcomes))))
        return Parcel((seconds, [_picklable(outcome) for outcome in outcomes]))


def _picklable(outcome: Outcome) -> Outcome:
    right, value = outcome
    if isinstance(value, Chunk):
        return right, value.picklable()
    error = _pickle_error(value)
    return (False, error) if error else outcome


def _pickle_error(result: Any) -> TypeError | None:
    try:
        Parcel(result)
        return None
    except Exception as error:
        return TypeError(f"the result cannot be pickled: {error}")


def settle(future: Future[Any], outcome: Outcome) -> None:
    right, value = outcome
    if right:
        future.set_result(value)
    else:
        future.set_exception(value)
