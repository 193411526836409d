"""What became of a call on another rank: its result, or what it raised."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
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


def chunk(
    function: Callable[..., Any], calls: list[Any], retries: int, retry_on: tuple[type[Exception], ...]
) -> tuple[float, list[Outcome]]:
    """Some of map's calls; those behind one that raised are not made."""
    begin, outcomes = time.perf_counter(), []
    for arguments in calls:
        outcomes.append(attempt((function, arguments, {}), retries, retry_on))
        if not outcomes[-1][0]:
            break
    return time.perf_counter() - begin, outcomes


def answer(answer: tuple[float, Any]) -> Parcel:
    """Results that cannot be pickled become errors that say so."""
    try:
        return Parcel(answer)
    except Exception as error:
        seconds, outcomes = answer
        if isinstance(outcomes, Exception):
            return Parcel((seconds, TypeError(str(outcomes))))
        if len(outcomes) == 1:
            return Parcel((seconds, [(False, TypeError(f"the result cannot be pickled: {error}"))]))
        return Parcel((seconds, [_picklable(outcome) for outcome in outcomes]))


def _picklable(outcome: Outcome) -> Outcome:
    try:
        Parcel(outcome)
        return outcome
    except Exception as error:
        return False, TypeError(f"the result cannot be pickled: {error}")


def settle(future: Future[Any], outcome: Outcome) -> None:
    right, value = outcome
    if right:
        future.set_result(value)
    else:
        future.set_exception(value)
