"""An allreduce of 64 MiB that nobody waits for, and something else of the same length, take less than 1.2 times the
longer of the two. One after the other they would take 2 times as long.

Each of two ranks moves its data by a thread of its own, so beside two that compute a core is free from four cores on:
there the claim is shown by computing. On two cores the ranks' threads have what they need only while the ranks
themselves rest, as they do while a device computes or a disk reads: this shows that an operation needs no help from its
caller to begin, go on and end. It does not show that communication is cheap for a core that computes: nothing could
hide that where no core is free.
"""

import os
from pathlib import Path

import pytest
from launch import available, run_ranks

WORKER = Path(__file__).parent / "workers" / "overlap.py"
LIMIT = 1.2
ATTEMPTS = 4  # others use the machine too
TELLING = 1.5  # the sum of the two, in lengths of the longer: an attempt in which one came out much longer says nothing
CORES = len(os.sched_getaffinity(0))

pytestmark = [pytest.mark.mpi, pytest.mark.skipif(not available("mpi"), reason="no mpirun")]


@pytest.mark.parametrize("memory", ["private", "symmetric"])
@pytest.mark.parametrize(
    "other",
    [
        pytest.param("rest", marks=pytest.mark.skipif(CORES < 2, reason="one core has no room for two ranks")),
        pytest.param(
            "compute", marks=pytest.mark.skipif(CORES < 4, reason=f"no core is free: 4 threads, {CORES} cores")
        ),
    ],
)
def test_64_mib_beside(other, memory):
    run = run_ranks(WORKER, 2, "shm", [other, memory, str(ATTEMPTS)], timeout=120)
    assert run.ok, run
    print(run.stdout)
    attempts = [[float(word) for word in line.split()] for line in run.stdout.splitlines()]
    assert len(attempts) == ATTEMPTS, run
    ratios = [both / max(alone, rest) for alone, rest, both in attempts if alone + rest > TELLING * max(alone, rest)]
    if not ratios:
        pytest.skip(f"the machine is too busy to tell: {attempts}")
    assert min(ratios) < LIMIT, run
