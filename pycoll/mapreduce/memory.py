"""The memory of a rank: what of it is taken, and how a job divides the rest."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from .._core import Segments
from ..errors import InvalidArgument

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}
_LEAST = 16 << 20  # bytes that a job must be left
_LEAST_BUFFER = 4 << 10


def parse_bytes(memory: int | str) -> int:
    """Bytes of 256_000_000, "256MB" or "244MiB"."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([KMG]i?B|)\s*", str(memory), re.IGNORECASE)
    if not found or isinstance(memory, bool):
        raise InvalidArgument(f"mapreduce: memory is {memory!r}, wanted bytes, or text such as '256MB' or '1GiB'")
    return int(float(found[1]) * _UNITS[found[2].upper()])


def resident() -> int:
    """Bytes of memory that this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Memory:
    """What a job may use beside what the process had before it: `left` bytes."""

    left: int

    @staticmethod
    def of(budget: int | str, rank: int) -> Memory:
        wanted, taken = parse_bytes(budget), resident()
        if wanted - taken < _LEAST:
            raise InvalidArgument(
                f"mapreduce: rank {rank}: memory is {wanted} bytes, wanted at least {taken + _LEAST}: the process has "
                f"{taken} already"
            )
        return Memory(wanted - taken)

    @property
    def block(self) -> int:
        """Bytes of input read at once. Two or three are there at a time."""
        return min(max(self.left // 64, 256 << 10), 4 << 20)

    @property
    def records(self) -> int:
        """Bytes for what map emits."""
        return self.left * 3 // 4 - 3 * self.block

    @property
    def record(self) -> int:
        """Bytes of input that one record may have: it is there several times while it is read."""
        return self.left // 8

    @property
    def sample(self) -> int:
        """Bytes of the keys of all ranks that ranges are chosen by."""
        return self.left // 16

    def too_large(self, parts: list[list[Segments]], fold: str) -> bool:
        """Whether the large records of so many segments do not fit beside each other, one of each.

        Sets are the exception: merged they have the same bytes.
        """
        return fold != "set" and sum(s.largest for part in parts for s in part) > self.left // 2

    def stage(self, ranks: int) -> int:
        """Bytes sent to each rank at once."""
        return min(max(self.left // (8 * ranks), _LEAST_BUFFER), 4 << 20)

    def buffer(self, files: int) -> int:
        """Bytes read at once of each of so many files."""
        return min(max(self.left // (4 * max(files, 1)), _LEAST_BUFFER), 256 << 10)

    def too_many(self, files: int) -> bool:
        """Whether so many files cannot be read at once."""
        return files * _LEAST_BUFFER > self.left // 4

    @property
    def rows(self) -> int:
        """Bytes of output written at once."""
        return min(max(self.left // 32, 256 << 10), 8 << 20)
