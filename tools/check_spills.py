#!/usr/bin/env python3
"""Which CUDA kernels spill registers, from what `ptxas -v` said while they were compiled.

    check_spills.py LOG...              checks logs of nvcc -Xptxas -v
    check_spills.py --launcher CMD...   runs CMD, a call of nvcc, shows what it says, and checks that

Prints one line for each kernel that spills and exits with 1 if there is any, or if a log speaks of no kernel at all. As
a launcher, CMD's exit status goes first, and a call that compiles no kernel is none of its business.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ENTRY = re.compile(r"Compiling entry function '(\S+)' for '(\S+)'")
SPILL = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")


def kernels(log: str) -> dict[tuple[str, str], int]:
    """Bytes of spill stores and loads by kernel (its mangled name) and architecture."""
    found: dict[tuple[str, str], int] = {}
    entry = None
    for line in log.splitlines():
        if named := ENTRY.search(line):
            entry = (named[1], named[2])
            found[entry] = 0
        elif entry and (spilled := SPILL.search(line)):
            found[entry] += int(spilled[1]) + int(spilled[2])
    return found


def complaints(log: str) -> list[str]:
    """One line for each kernel that spills."""
    return [f"spills: {name} for {arch}: {spilled} bytes" for (name, arch), spilled in kernels(log).items() if spilled]


def launch(command: list[str]) -> int:
    """Runs `command` and checks what it says."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    found = complaints(done.stdout)
    said = [
        line for line in done.stdout.splitlines() if not line.startswith("ptxas info") and "bytes stack" not in line
    ]
    print("\n".join([*said, *found]), end="\n" if said or found else "", file=sys.stderr)
    return done.returncode or bool(found)


def main() -> int:
    if sys.argv[1:2] == ["--launcher"]:
        return launch(sys.argv[2:])
    found = []
    for path in sys.argv[1:]:
        log = Path(path).read_text()
        found += complaints(log) if kernels(log) else [f"{path}: no kernel in it"]
    print("\n".join(found) or "spills: none")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
