"""One line of `pycoll doctor`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """What was looked at, "ok", "warn" or "fail", what was found, and the command that mends it where it is not ok."""

    name: str
    status: str
    found: str
    mend: str = ""


def ok(name: str, found: str) -> Check:
    return Check(name, "ok", found)


def warn(name: str, found: str, mend: str) -> Check:
    """Works, but something is slower or missing."""
    return Check(name, "warn", found, mend)


def fail(name: str, found: str, mend: str) -> Check:
    """Does not work."""
    return Check(name, "fail", found, mend)


def gigabytes(count: float) -> str:
    return f"{count / 2**30:.1f} GiB"
