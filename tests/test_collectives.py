"""Every collective, algorithm, type and operator over real ranks, and what else a communicator does: see the workers.

One start of the ranks runs all cases of a worker; each case is a test of its own.
"""

import functools
import re
from pathlib import Path

import pytest
from launch import available, run_ranks

pytest.importorskip("torch")
WORKERS = Path(__file__).parent / "workers"
MATRIX = ("matrix", "uneven", "large")
CASES = [
    (worker, case)
    for worker in ("communicator.py", "messages.py")
    for case in re.findall(r"@case\ndef (\w+)", (WORKERS / worker).read_text())
]
RANKS = [("shm", 1), ("shm", 2), ("shm", 3), ("shm", 5), ("mpi", 2), ("mpi", 5)]  # tests/cpp has 1 to 17

pytestmark = [pytest.mark.mpi, pytest.mark.skipif(not available("mpi"), reason="no mpirun")]


@functools.cache
def run_all(worker, launcher, n):
    return run_ranks(WORKERS / worker, n, launcher, timeout=240)


def check(worker, launcher, n, case, cases):
    run = run_all(worker, launcher, n)
    if all(re.search(rf"(?<!\d){rank} {case} ok", run.stdout) for rank in range(n)):
        return
    failed = [other for other in cases if re.search(rf"\d {other} failed", run.stdout)]
    if failed and case not in failed:
        pytest.skip(f"{failed[0]} failed and ended the run")
    pytest.fail(str(run), pytrace=False)


@pytest.mark.parametrize("case", MATRIX)
@pytest.mark.parametrize(("launcher", "n"), RANKS)
def test_equals_the_oracle(launcher, n, case):
    check("collectives.py", launcher, n, case, MATRIX)


@pytest.mark.parametrize(("worker", "case"), CASES)
@pytest.mark.parametrize(("launcher", "n"), [("shm", 1), ("shm", 2), ("shm", 3), ("mpi", 2), ("mpi", 3), ("mpi", 4)])
def test_communicator(launcher, n, worker, case):
    check(worker, launcher, n, case, [c for w, c in CASES if w == worker])


@pytest.mark.parametrize("worker", ["collectives.py", "communicator.py", "messages.py"])
@pytest.mark.parametrize(("launcher", "n"), [("shm", 2), ("shm", 3), ("mpi", 2), ("mpi", 3)])
def test_ends_cleanly(worker, launcher, n):
    run = run_all(worker, launcher, n)
    assert run.ok, run
    assert run.leftovers == []
