"""What became of calls on another rank: their results, or what they raised."""

from __future__ import annotations

import pickle
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import Error
from ..parcel import Parcel

Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]
Outcome = tuple[bool, Any]  # True and the result, or False and a Raised
RetryOn = tuple[type[BaseException], ...]

#: Types that come back from pickle as they were, or whose elements are not looked at.
_known: set[type] = {type(None), bool, int, float, complex, str, bytes, list, tuple, dict, set, np.ndarray}


class RemoteTraceback(Exception):
    """Where an exception was raised on another rank: its cause, so that it is printed with it."""


@dataclass
class Raised:
    """An exception on its way; its traceback travels as text."""

    error: BaseException
    trace: str = ""

    def __post_init__(self) -> None:
        self.trace = self.trace or "".join(traceback.format_exception(self.error))

    def on(self, rank: int) -> BaseException:
        """The exception, to be raised again where it was not raised first."""
        if self.error.__traceback__ is None and self.error.__cause__ is None:
            self.error.__cause__ = RemoteTraceback(f"\nOn rank {rank}:\n{self.trace}")
        return self.error

    def portable(self) -> Raised:
        """This, or where its exception does not come through pickle, an Error that says what it was."""
        why = _why_not(self.error)
        if why is None:
            return self
        name = type(self.error).__name__
        return Raised(Error(f"TaskPool: a task raised {name}: {self.error}; {name} itself {why}"), self.trace)


def attempt(call: Call, retries: int, retry_on: RetryOn) -> Outcome:
    """Ctrl-C alone is not an outcome."""
    function, args, kwargs = call
    while True:
        try:
            return True, function(*args, **kwargs)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            if not retries or not isinstance(error, retry_on):
                return False, Raised(error)
            retries -= 1


@dataclass
class Chunk:
    """Of some of map's calls the results, up to the one that raised, or to where time was up."""

    results: list[Any]
    raised: Raised | None
    seconds: float

    def portable(self) -> Chunk:
        """This, up to the first result that does not come through pickle."""
        for i, result in enumerate(self.results):
            if why := _why_not(result):
                return Chunk(self.results[:i], Raised(TypeError(f"the result {why}")), self.seconds)
        return Chunk(self.results, self.raised and self.raised.portable(), self.seconds)


def chunk(function: Callable[..., Any], columns: list[Any], retries: int, retry_on: RetryOn, most: float) -> Chunk:
    """Calls `function` with each row of the columns, one column an argument; begins no call after `most` seconds."""
    begin, results = time.perf_counter(), []
    for arguments in zip(*columns, strict=True):
        try:
            results.append(function(*arguments))
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            right, value = False, Raised(error)
            if retries and isinstance(error, retry_on):
                right, value = attempt((function, arguments, {}), retries - 1, retry_on)
            if not right:
                return Chunk(results, value, time.perf_counter() - begin)
            results.append(value)
        if time.perf_counter() - begin > most:
            break
    return Chunk(results, None, time.perf_counter() - begin)


def answer(seconds: float, outcomes: list[Outcome] | Exception) -> Parcel:
    """What a worker sends: outcomes of a batch's first calls, or why it could not read the batch."""
    if isinstance(outcomes, Exception):
        return Parcel((seconds, Raised(outcomes).portable()))
    try:
        return Parcel((seconds, [_portable(outcome) for outcome in outcomes]))
    except Exception:  # something inside a list, or such
        return Parcel((seconds, [_portable(outcome, inside=True) for outcome in outcomes]))


def _portable(outcome: Outcome, inside: bool = False) -> Outcome:
    right, value = outcome
    if isinstance(value, Raised):
        return right, value.portable()
    if isinstance(value, Chunk):
        known = _known.issuperset(map(type, value.results)) and not inside
        return right, value if known and value.raised is None else value.portable()
    if type(value) in _known and not inside:
        return outcome
    why = _why_not(value)
    return (False, Raised(TypeError(f"the result {why}"))) if why else outcome


def _why_not(value: Any) -> str | None:
    """What is wrong if a value does not come through pickle. Types that do are known from then on."""
    if type(value) in (np.ndarray, int, float, str):
        return None
    try:
        parcel = Parcel(value)
    except Exception as error:
        return f"cannot be pickled: {error}"
    try:
        pickle.loads(parcel.pickled, buffers=parcel.arrays)
    except Exception as error:
        return f"cannot be unpickled: {error}"
    if not isinstance(value, BaseException):
        _known.add(type(value))
    return None
