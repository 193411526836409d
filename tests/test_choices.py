"""How bytes move through shared memory can be forced, and the result is the same however they do."""

import os
import re
from pathlib import Path

import pytest
from launch import available, run_ranks

from pycoll import InvalidArgument
from pycoll.bootstrap import make_group
from pycoll.exchange import AloneExchange
from pycoll.settings import Settings

WORKER = Path(__file__).parent / "workers" / "choices.py"
BLOCK = 512 << 10  # bytes of a stage that a large array takes at a time


def may_read_peers() -> bool:
    """Single copy needs what a debugger needs; Yama takes it away from all but root."""
    scope = Path("/proc/sys/kernel/yama/ptrace_scope")
    return os.geteuid() == 0 or not scope.exists() or scope.read_text().strip() == "0"


@pytest.mark.mpi
@pytest.mark.skipif(not available("mpi"), reason="no mpirun")
@pytest.mark.parametrize("single_copy", ["0", "1"])
@pytest.mark.parametrize("stores", ["ordinary", "streaming"])
def test_forced(stores, single_copy):
    env = {"PYCOLL_STORES": stores, "PYCOLL_SINGLE_COPY": single_copy, "PYCOLL_LOG": "info"}
    run = run_ranks(WORKER, 2, "shm", timeout=120, env=env)
    assert run.ok, run
    assert re.search(rf"stores {stores}$", run.stderr, re.MULTILINE), run
    used = [int(line.split()[1]) for line in run.stdout.splitlines()]
    assert len(used) == 2, run
    # What is read where it lies leaves the stages untouched.
    staged = single_copy == "0" or not may_read_peers()
    assert all((bytes_used >= BLOCK) == staged for bytes_used in used), used


@pytest.mark.parametrize(
    ("variable", "choices"), [("PYCOLL_STORES", ("ordinary", "streaming")), ("PYCOLL_SINGLE_COPY", "01")]
)
def test_a_wrong_value_is_refused_by_name(monkeypatch, variable, choices):
    for value in (*choices, ""):
        monkeypatch.setenv(variable, value)
        make_group(AloneExchange(), Settings())
    for value in ("yes", choices[0] + " ", choices[1].upper() + "1"):
        monkeypatch.setenv(variable, value)
        with pytest.raises(InvalidArgument, match=f"{variable} is '{value}', wanted {choices[0]} or {choices[1]}"):
            make_group(AloneExchange(), Settings())
