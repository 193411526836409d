"""Where and when: what JSON results begin with."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import datetime, timezone
from pathlib import Path

from .environments import ROOT


def cores() -> list[int]:
    return sorted(os.sched_getaffinity(0))


def describe() -> dict[str, object]:
    compiler = _said(["c++", "--version"])
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": _processor(),
        "cores": len(cores()),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "kernel": platform.release(),
        "libc": " ".join(platform.libc_ver()),
        "compiler": compiler.splitlines()[0] if compiler else None,
        "transparent_huge_pages": _chosen("enabled"),
        "shared_huge_pages": _chosen("shmem_enabled"),
        "commit": _said(["git", "-C", str(ROOT), "rev-parse", "HEAD"]) or None,
        "changed": bool(_said(["git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no"])),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _chosen(name: str) -> str | None:
    """The bracketed word of a switch of the kernel's huge pages."""
    try:
        words = Path("/sys/kernel/mm/transparent_hugepage", name).read_text().split()
    except OSError:
        return None
    return next((word.strip("[]") for word in words if word.startswith("[")), None)


def _said(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""
