"""Settings from the environment, read once when a world is made."""

from __future__ import annotations

import json
import logging
import math
import os
from dataclasses import dataclass, field
from pathlib import Path

from .errors import InvalidArgument

log = logging.getLogger("pycoll")

#: (collective, shares memory, ranks, from how many bytes, algorithm)
Rule = tuple[str, bool, int, int, str]

DEFAULT_TIMEOUT = 300.0


@dataclass(frozen=True)
class Settings:
    """timeout in seconds; transport "auto", "shm" or "mpi"; algo a name or None; rules: the measured table."""

    timeout: float = DEFAULT_TIMEOUT
    transport: str = "auto"
    algo: str | None = None
    rules: list[Rule] = field(default_factory=list)

    @staticmethod
    def from_environment(timeout: float | None = None, transport: str | None = None) -> Settings:
        """Arguments win over PYCOLL_TIMEOUT, PYCOLL_TRANSPORT, PYCOLL_ALGO; these over what is shipped."""
        if level := os.environ.get("PYCOLL_LOG"):
            logging.basicConfig(format="%(name)s %(levelname)s: %(message)s")
            try:
                log.setLevel(level.upper())
            except ValueError:
                raise InvalidArgument(f"init: PYCOLL_LOG is {level!r}, wanted debug, info, warning or error") from None
        seconds = (
            _seconds(timeout, "timeout")
            if timeout is not None
            else _seconds(os.environ.get("PYCOLL_TIMEOUT"), "PYCOLL_TIMEOUT")
        )
        chosen = transport or os.environ.get("PYCOLL_TRANSPORT") or "auto"
        if chosen not in ("auto", "shm", "mpi"):
            raise InvalidArgument(f"init: transport is {chosen!r}, wanted auto, shm or mpi")
        return Settings(seconds, chosen, os.environ.get("PYCOLL_ALGO") or None, load_rules())


def _seconds(text: float | str | None, name: str) -> float:
    if text is None or text == "":
        return DEFAULT_TIMEOUT
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        raise InvalidArgument(f"init: {name} is {text!r}, wanted seconds, more than 0")
    return seconds


def tuned_path() -> Path:
    """Where `pycoll tune` writes this machine's table; PYCOLL_TUNED names another file."""
    if named := os.environ.get("PYCOLL_TUNED"):
        return Path(named)
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "pycoll" / "tuned.json"


def load_rules() -> list[Rule]:
    """The measured table, or an empty list if there is none."""
    path = tuned_path()
    if not path.is_file():
        return []
    try:
        table = json.loads(path.read_text())
        if table["version"] != 1:
            raise ValueError(f"version {table['version']}")
        rules = [
            (e["collective"], e["transport"] == "shm", int(e["ranks"]), int(e["bytes"]), e["algo"])
            for e in table["entries"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidArgument(
            f"init: {path} is not a table that `pycoll tune` wrote ({error}); delete it or tune again"
        ) from None
    log.info("algorithms chosen by %s, %d entries", path, len(rules))
    return rules
