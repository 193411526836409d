"""DistributedOptimizer: over ranks it trains as one process does (workers/optimizer.py), and refuses what is wrong."""

import functools
import re
from pathlib import Path

import pytest
from launch import available, run_ranks

torch = pytest.importorskip("torch")
import pycoll  # noqa: E402

WORKER = Path(__file__).parent / "workers" / "optimizer.py"
CASES = re.findall(r"@case\ndef (\w+)", WORKER.read_text())
RANKS = [
    pytest.param(launcher, n, id=f"{launcher}-{n}", marks=[pytest.mark.mpi] if launcher != "torchrun" else [])
    for launcher, n in [("shm", 1), ("shm", 3), ("mpi", 2), ("torchrun", 2)]
]


@functools.cache
def run_all(launcher, n):
    """All cases in one run: starting the ranks takes longer than most cases do."""
    return run_ranks(WORKER, n, launcher, timeout=120)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("launcher", "n"), RANKS)
def test_trains_as_one_process(launcher, n, case):
    if not available(launcher):
        pytest.skip(f"{launcher}: cannot start ranks here")
    run = run_all(launcher, n)
    if not all(f"{rank} {case} ok" in run.stdout for rank in range(n)):
        if f" {case} failed" in run.stdout or not any(f" {other} failed" in run.stdout for other in CASES):
            pytest.fail(str(run), pytrace=False)
        pytest.skip("an earlier case failed and ended the run")


@pytest.mark.parametrize(("launcher", "n"), RANKS)
def test_ends_cleanly(launcher, n):
    if not available(launcher):
        pytest.skip(f"{launcher}: cannot start ranks here")
    run = run_all(launcher, n)
    assert run.ok, run
    assert run.leftovers == []


def model():
    return torch.nn.Linear(3, 2)


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1)


def test_bad_arguments_are_named():
    m = model()
    wrapped = pycoll.DistributedOptimizer(sgd(m.parameters()))
    names = list(m.named_parameters())
    table = [
        ("must be a torch.optim.Optimizer, got Linear", lambda: pycoll.DistributedOptimizer(m)),
        ("is a DistributedOptimizer already", lambda: pycoll.DistributedOptimizer(wrapped)),
        ("at least 1, got 0", lambda: pycoll.DistributedOptimizer(sgd(m.parameters()), bucket_bytes=0)),
        ("at least 1, got 1.5", lambda: pycoll.DistributedOptimizer(sgd(m.parameters()), bucket_bytes=1.5)),
        ("must give (name, parameter) pairs", lambda: pycoll.DistributedOptimizer(sgd(m.parameters()), m.parameters())),
        ("'weight' a float, not a tensor", lambda: pycoll.DistributedOptimizer(sgd(m.parameters()), [("weight", 1.0)])),
        ("is empty", lambda: pycoll.DistributedOptimizer(sgd(m.parameters()), [])),
        (
            "lacks parameter 1 of group 0, float32[2]",
            lambda: pycoll.DistributedOptimizer(sgd(m.parameters()), names[:1]),
        ),
        (
            "the name 'a' to two parameters",
            lambda: pycoll.DistributedOptimizer(sgd(m.parameters()), [("a", p) for p in m.parameters()]),
        ),
        (
            "'group0.0' is on meta",
            lambda: pycoll.DistributedOptimizer(sgd(torch.nn.Linear(2, 2, device="meta").parameters())),
        ),
    ]
    for text, call in table:
        with pytest.raises(pycoll.InvalidArgument) as raised:
            call()
        assert text in str(raised.value)
        assert "\n" not in str(raised.value)


def test_cannot_be_pickled():
    import copy

    with pytest.raises(TypeError, match="save its state_dict"):
        copy.deepcopy(pycoll.DistributedOptimizer(sgd(model().parameters())))


def test_buckets_are_planned_in_reverse_order_by_dtype():
    from pycoll.buckets import plan

    named = [(str(i), torch.zeros(4, dtype=torch.float64 if i in (1, 4) else torch.float32)) for i in range(6)]
    order = [[name for name, _ in bucket] for bucket in plan(named, 32)]
    # float32: 16 bytes each, two a bucket; float64: 32 bytes each, one a bucket. Sorted by the last one's place.
    assert order == [["4"], ["5", "3"], ["1"], ["2", "0"]]
    assert [len(bucket) for bucket in plan(named, 1)] == [1] * 6
    assert len(plan(named, 1 << 20)) == 2
    assert plan([], 1) == []
