"""Allreduce with a codec, over real ranks and over nodes of several ranks: see workers/compressed.py.

One start of the ranks runs all cases; each case is a test of its own.
"""

import functools
import re
from pathlib import Path

import pytest
from launch import available, run_ranks

pytest.importorskip("torch")
WORKER = Path(__file__).parent / "workers" / "compressed.py"
CASES = re.findall(r"@case\ndef (\w+)", WORKER.read_text())
RANKS = [  # launcher, ranks, ranks on each node (0: all of them)
    pytest.param("shm", 2, 0, id="shm-2"),
    pytest.param("shm", 3, 0, id="shm-3"),
    pytest.param("mpi", 4, 2, id="mpi-2-nodes"),
]

pytestmark = [pytest.mark.mpi, pytest.mark.skipif(not available("mpi"), reason="no mpirun")]


@functools.cache
def run_all(launcher, n, per_node):
    return run_ranks(WORKER, n, launcher, timeout=120, env={"RANKS_PER_NODE": str(per_node)})


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("launcher", "n", "per_node"), RANKS)
def test_compressed_allreduce(launcher, n, per_node, case):
    run = run_all(launcher, n, per_node)
    if all(re.search(rf"(?<!\d){rank} {case} ok", run.stdout) for rank in range(n)):
        return
    failed = [other for other in CASES if re.search(rf"\d {other} failed", run.stdout)]
    if failed and case not in failed:
        pytest.skip(f"{failed[0]} failed and ended the run")
    pytest.fail(str(run), pytrace=False)


@pytest.mark.parametrize(("launcher", "n", "per_node"), RANKS)
def test_ends_cleanly(launcher, n, per_node):
    run = run_all(launcher, n, per_node)
    assert run.ok, run
    assert run.leftovers == []
