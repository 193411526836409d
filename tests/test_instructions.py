"""Instructions retired by one allreduce of 8 bytes, in place, from Python: it stays what it was.

Counted by callgrind, since a virtual machine often has no counters, and since it counts exactly and says where.
Whenever a call enters the core, callgrind writes down what was retired since the last one did: one turn of the caller's
loop, from core to core, and nothing of Python's start. It slows its rank down some fifty times, and the writing takes
milliseconds, so the other rank, which runs freely, has always come first: no instruction is spent on waiting. What
varies from call to call is whether the other has fallen asleep and must be woken (36 instructions), and, seldom,
Python's own housekeeping; the median of many calls is the same within 1 % in every run.
"""

from __future__ import annotations

import re
import shutil
import statistics
import sys
from pathlib import Path

import numpy as np
import pytest
from launch import available, run_ranks
from workers.instructions import ENTRY

from pycoll import _build_info

WORKER = Path(__file__).parent / "workers" / "instructions.py"
CALLS, WARM = 80, 30  # Python specializes what it has run a few times
TOLERANCE = 0.1

# The interpreter's own instructions are in the count, so a record is of these versions. The parts are what was retired
# in libpycoll, in its bindings, and in all else: Python, NumPy, the C library.
VERSIONS = {"Python": "3.11", "NumPy": "2.4", "compiler": "GNU 12"}
RECORDED = {"core": 764, "binding": 597, "rest": 1561}

pytestmark = [
    pytest.mark.mpi,
    pytest.mark.skipif(not available("mpi"), reason="no mpirun"),
    pytest.mark.skipif(not shutil.which("valgrind"), reason="no valgrind to count instructions with"),
]


def versions() -> dict[str, str]:
    """Of what is counted, as far as it matters."""
    return {
        "Python": ".".join(map(str, sys.version_info[:2])),
        "NumPy": ".".join(np.__version__.split(".")[:2]),
        "compiler": _build_info.COMPILER.split(".")[0],
    }


def part_of(shared_object: str) -> str:
    name = Path(shared_object).name
    return "core" if name.startswith("libpycoll") else "binding" if name.startswith("_core.") else "rest"


def read(profile: Path) -> dict[str, int]:
    """Instructions by part: lines "POSITION COUNT" under the "ob=" they are of, less those of calls, which repeat what
    the called function has under its own name."""
    parts, part, inclusive = dict.fromkeys(RECORDED, 0), "rest", False
    text = profile.read_text()
    for line in text.splitlines():
        if line.startswith("ob="):
            part = part_of(line.removeprefix("ob="))
        elif line.startswith("calls="):
            inclusive = True
        elif cost := re.fullmatch(r"[-+*\d]\d* (\d+)", line):
            parts[part] += 0 if inclusive else int(cost[1])
            inclusive = False
    total = re.search(r"^totals: (\d+)", text, re.MULTILINE)
    assert total and sum(parts.values()) == int(total[1]), f"{profile}: not understood: {parts}, {total}"
    return parts


def test_allreduce_of_8_bytes_from_python(tmp_path):
    out = tmp_path / "callgrind"
    run = run_ranks(WORKER, 2, "shm", [str(out), str(CALLS)], timeout=180)
    assert run.ok, run
    assert Path(f"{out}.{CALLS}").exists(), f"not every call went through {ENTRY}"
    # Profile i is of the time before call i entered the core, 1 the first: there is none of the last one's return.
    profiles = [read(Path(f"{out}.{i}")) for i in range(WARM, CALLS + 1)]
    measured = {part: round(statistics.median(p[part] for p in profiles)) for part in RECORDED}
    totals = [sum(p.values()) for p in profiles]
    said = f"{statistics.median(totals):.0f} instructions ({min(totals)} to {max(totals)}), of them {measured}"
    print(said)
    if versions() != VERSIONS:
        pytest.skip(f"measured {said} with {versions()}; the record is of {VERSIONS}")
    for part, count in RECORDED.items():
        change = measured[part] / count - 1
        assert abs(change) <= TOLERANCE, f"{part}: {change:+.0%} against the record {RECORDED}; measured {said}"
