"""How far apart the two cores are, asked between blocks: on virtual machines it changes while one measures."""

from __future__ import annotations

import select
import subprocess
from collections.abc import Sequence

from .environments import native

NEAR_NS = 120.0  # below: the cores share a cache
FAR_NS = 160.0  # above: they do not
LABELS = ("near", "far", "unknown")  # that are reported; "mixed" is not
SECONDS = 20.0  # for an answer


def label_of(before: float | None, after: float | None) -> str:
    """What a block counts as, by the nanoseconds one way before and after it."""
    if before is None or after is None:
        return "unknown"
    if before < NEAR_NS and after < NEAR_NS:
        return "near"
    if before > FAR_NS and after > FAR_NS:
        return "far"
    return "mixed"


class Probe:
    """A process that sleeps between questions."""

    def __init__(self, cores: Sequence[int]) -> None:
        self._process = None
        if len(cores) > 1:
            command = [str(native("ping_pong")), str(cores[0]), str(cores[1])]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
            )

    def ask(self) -> float | None:
        """Nanoseconds from one core to the other; None with one core, or if the probe does not answer."""
        if self._process is None:
            return None
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write("?\n")
            ready, _, _ = select.select([self._process.stdout], [], [], SECONDS)
            return float(self._process.stdout.readline()) if ready else self.close()
        except (OSError, ValueError):
            return self.close()

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
