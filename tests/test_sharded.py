"""ShardedOptimizer, and both optimizers where a torch optimizer was: workers/sharded.py, workers/drop_in.py."""

import functools
import re
from pathlib import Path

import pytest
from launch import available, run_ranks

torch = pytest.importorskip("torch")
import pycoll  # noqa: E402

WORKERS = Path(__file__).parent / "workers"
CASES = [
    name
    for file in ("drop_in.py", "sharded.py")
    for name in re.findall(r"@case\ndef (\w+)", (WORKERS / file).read_text())
]
# What memory that ranks share, its order of sums, or another number of ranks could change.
SOME = [
    "equal_to_unsharded",
    "memory_falls_with_ranks",
    "whole_parameters_are_balanced",
    "gradients_leave_and_come_whole",
    "state_of_other_numbers_of_ranks",
    "kinds_of_parameters",
]
# Not marked mpi: what depends on which MPI it is is tested elsewhere, and starting ranks takes longer than most cases.
RUNS = {("mpi", 3): CASES, ("shm", 4): SOME}
needs_mpirun = pytest.mark.skipif(not available("mpi"), reason="no mpirun")


@functools.cache
def run_all(launcher, n):
    return run_ranks(WORKERS / "sharded.py", n, launcher, RUNS[launcher, n], timeout=120)


@needs_mpirun
@pytest.mark.parametrize(
    ("launcher", "n", "case"),
    [pytest.param(*run, case, id=f"{case}-{run[0]}-{run[1]}") for run, cases in RUNS.items() for case in cases],
)
def test_case(launcher, n, case):
    run = run_all(launcher, n)
    if all(f"{rank} {case} ok" in run.stdout for rank in range(n)):
        return
    failed = [other for other in RUNS[launcher, n] if f" {other} failed" in run.stdout]
    if failed and case not in failed:
        pytest.skip(f"{failed[0]} failed and ended the run")
    pytest.fail(str(run), pytrace=False)


@needs_mpirun
@pytest.mark.parametrize(("launcher", "n"), RUNS)
def test_ends_cleanly(launcher, n):
    run = run_all(launcher, n)
    assert run.ok, run
    assert run.leftovers == []


def test_bad_arguments_are_named():
    p = [torch.nn.Parameter(torch.ones(3))]
    table = [
        ("must be a torch.optim.Optimizer, got list", lambda: pycoll.ShardedOptimizer(p)),
        ('wanted "elements"', lambda: pycoll.ShardedOptimizer(torch.optim.SGD(p), split="rows")),
        ("SparseAdam takes sparse gradients only", lambda: pycoll.ShardedOptimizer(torch.optim.SparseAdam(p))),
        ("SparseAdam takes sparse gradients only", lambda: pycoll.DistributedOptimizer(torch.optim.SparseAdam(p))),
        (
            "is a ShardedOptimizer already",
            lambda: pycoll.DistributedOptimizer(pycoll.ShardedOptimizer(torch.optim.SGD(p))),
        ),
    ]
    for text, call in table:
        with pytest.raises(pycoll.InvalidArgument) as raised:
            call()
        assert text in str(raised.value)


def test_layouts():
    from pycoll.sharded_bucket import by_elements, by_parameters

    parameters = [torch.empty(n) for n in (100, 32, 0, 33)]  # 4, 1, 1 and 2 lines of 32
    even = by_elements(parameters, 3)
    assert (even.begins, even.counts) == ([0, 128, 160, 192], [96, 96, 96])
    loads = [0, 0, 0]
    whole = by_parameters(parameters, loads)
    assert (whole.begins, whole.counts, loads) == ([0, 192, 224, 128], [128, 64, 64], [400, 132, 128])
    assert by_parameters(parameters[:1], loads).counts == [32, 32, 128]  # to the rank that has least so far
