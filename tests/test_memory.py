"""What a communicator costs in memory, shared and its own; test_stress.py looks at many mixed operations."""

import json
from pathlib import Path

import pytest
from launch import available, run_ranks

from pycoll import _core

WORKER = Path(__file__).parent / "workers" / "memory.py"
SHARED_MOST = 8 << 20  # bytes, of slots and flags of a communicator of two ranks
OPERATIONS = 100_000

pytestmark = [pytest.mark.mpi, pytest.mark.skipif(not available("mpi"), reason="no mpirun")]


def facts_of(args, env=None):
    """What each of two ranks over shared memory said."""
    run = run_ranks(WORKER, 2, "shm", args, timeout=120, env=env)
    assert run.ok, run
    facts = [json.loads(line) for line in run.stdout.splitlines()]
    assert sorted(one["rank"] for one in facts) == [0, 1], run
    print(facts)
    return facts


def test_shared_memory_after_every_operation():
    facts = facts_of(["shared"], {"PYCOLL_SINGLE_COPY": "0"})  # so that all large private arrays go through it
    for one in facts:
        # One segment, mapped once, and used: otherwise this looks at something else.
        assert _core.ShmTransport.segment_bytes(2) <= one["Size"] <= SHARED_MOST, facts
        assert one["Rss"] > 0, facts
    assert sum(one["Pss"] for one in facts) <= SHARED_MOST, facts


def test_operations_leave_nothing_behind():
    """Less than a byte each: whatever they allocated and kept would be more."""
    for one in facts_of(["growth", str(OPERATIONS)]):
        assert one["grown"] < OPERATIONS, one
