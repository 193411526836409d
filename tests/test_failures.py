"""Nothing hangs: a rank dies at a random moment of a stream of operations, and every other rank says so, soon."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from forked import run_forked
from launch import available, mpi_kind, run_ranks
from workers.death import MODES, run

MOMENTS = 20
WORKER = Path(__file__).parent / "workers" / "death.py"
SOON = 2.0  # seconds from a death on the node to the last survivor's exception
DEADLINE = 1.0  # of an operation, where the victim is only stopped


def check(output: str, mode: str, ranks: int, deadline: float) -> float:
    """Seconds from the death to the last survivor's exception."""
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    died = [line["died"] for line in lines if "died" in line]
    told = [line for line in lines if "raised" in line]
    assert "went on" not in output, output
    assert len(died) == 1, output
    # A stopped rank that is woken up raises too, naming itself.
    survivors = [line for line in told if line["raised"] - died[0] < deadline + SOON]
    assert len(survivors) >= ranks - 1, output
    for line in survivors:
        assert line["rank"] == ranks - 1, line
        assert line["host"], line
        assert "rank 2 last called" in line["operation"] or "called nothing" in line["operation"], line
    slowest = max(line["raised"] for line in survivors) - died[0]
    assert slowest < (deadline + SOON if mode == "stop" else SOON), (slowest, output)
    return slowest


@pytest.mark.parametrize("mode", MODES)
def test_death_over_shared_memory(mode: str) -> None:
    for seed in range(MOMENTS):
        ended = run_forked(
            3,
            lambda comm, seed=seed: run(comm, mode, seed),
            timeout=30,
            op_timeout=DEADLINE if mode == "stop" else 20,
        )
        check("\n".join(outcome.output for outcome in ended), mode, 3, DEADLINE)


@pytest.mark.mpi
@pytest.mark.skipif(not available("mpi"), reason="no mpirun here")
@pytest.mark.parametrize("mode", MODES)
def test_death_over_mpi(mode: str) -> None:
    limit = DEADLINE if mode == "stop" else 20

    def die(seed: int) -> None:
        env = {"DEATH_TIMEOUT": str(limit)}
        ended = run_ranks(WORKER, 3, "mpi", [mode, str(seed)], 40, survive=True, env=env)
        assert not ended.timed_out, str(ended)
        assert ended.stdout, str(ended)
        check(ended.stdout, mode, 3, DEADLINE)

    with ThreadPoolExecutor(2) as two:  # they wait more than they compute
        list(two.map(die, range(MOMENTS if mpi_kind() == "openmpi" else MOMENTS // 4)))


def test_rank_that_never_comes_is_a_timeout() -> None:
    import time

    import numpy as np

    import pycoll

    def body(comm: pycoll.Communicator) -> None:
        if comm.rank == 2:
            time.sleep(1.5)
        begin = time.monotonic()
        try:
            comm.allreduce(np.ones(10, np.float32), timeout=0.5)
        except pycoll.Timeout as error:
            print(f"{time.monotonic() - begin:.2f} {error}", flush=True)

    for rank, outcome in enumerate(run_forked(3, body, op_timeout=20)):
        seconds, sentence = outcome.output.split(maxsplit=1)  # the late rank raises at once
        assert (0.5 <= float(seconds) < 1.4) if rank < 2 else float(seconds) < 0.3, outcome.output
        assert "allreduce f32[10] sum" in sentence, sentence
        assert "waiting for rank 2; rank 2 has called nothing yet" in sentence, sentence
