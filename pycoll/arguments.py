"""Checks of arguments, with one sentence for each."""

from __future__ import annotations

from numbers import Integral
from typing import Any

from .errors import InvalidArgument


def check_whole(who: str, what: str, got: Any, least: int, most: float = float("inf")) -> None:
    """Raises InvalidArgument unless `got` is a whole number from `least` to `most`."""
    if isinstance(got, bool) or not isinstance(got, Integral) or not least <= int(got) <= most:
        upper = f" and at most {most}" if most < float("inf") else ""
        raise InvalidArgument(f"{who}: {what} is {got!r}, wanted a whole number of at least {least}{upper}")
