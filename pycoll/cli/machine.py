"""What this machine has: cores, groups of CPUs for ranks."""

from __future__ import annotations

import os
from pathlib import Path


def cores() -> list[set[int]]:
    """The CPUs this process may use, one set a physical core (its hardware threads), in order."""
    seen: dict[str, set[int]] = {}
    for cpu in sorted(os.sched_getaffinity(0)):
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        seen.setdefault(siblings.read_text().strip() if siblings.exists() else str(cpu), set()).add(cpu)
    return list(seen.values())


def quota() -> float | None:
    """How many CPUs' worth of time the control group grants, or None for no limit."""
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        return None


def memory_limit() -> int | None:
    """Bytes that the control group grants, or None for no limit."""
    try:
        return int(Path("/sys/fs/cgroup/memory.max").read_text())
    except (OSError, ValueError):  # no such file, or "max"
        return None


def meminfo(name: str) -> int:
    """A line of /proc/meminfo: bytes, or a plain count where the line has no unit."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(name + ":"):
            words = line.split()
            return int(words[1]) * (1024 if len(words) > 2 else 1)
    return 0
