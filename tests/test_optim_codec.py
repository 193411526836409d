"""DistributedOptimizer with a codec, over ranks: workers/optimizer_codec.py. One start of the ranks runs all cases."""

import functools
import re
from pathlib import Path

import pytest
from launch import available, run_ranks

torch = pytest.importorskip("torch")
import pycoll  # noqa: E402

WORKER = Path(__file__).parent / "workers" / "optimizer_codec.py"
CASES = re.findall(r"@case\ndef (\w+)", WORKER.read_text())
RANKS = [("shm", 1), ("shm", 2), ("shm", 3)]  # test_optim.py has the other transports

mpi = [pytest.mark.mpi, pytest.mark.skipif(not available("mpi"), reason="no mpirun")]


@functools.cache
def run_all(launcher, n):
    return run_ranks(WORKER, n, launcher, timeout=120)


def over_ranks(test):
    for mark in mpi:
        test = mark(test)
    return pytest.mark.parametrize(("launcher", "n"), RANKS, ids=[f"{launcher}-{n}" for launcher, n in RANKS])(test)


@over_ranks
@pytest.mark.parametrize("case", CASES)
def test_trains_compressed(launcher, n, case):
    run = run_all(launcher, n)
    if all(f"{rank} {case} ok" in run.stdout for rank in range(n)):
        return
    failed = [other for other in CASES if f" {other} failed" in run.stdout]
    if failed and case not in failed:
        pytest.skip(f"{failed[0]} failed and ended the run")
    pytest.fail(str(run), pytrace=False)


@over_ranks
def test_ends_cleanly(launcher, n):
    run = run_all(launcher, n)
    assert run.ok, run
    assert run.leftovers == []


def wrapped(codec, **options):
    inner = torch.optim.SGD(torch.nn.Linear(4, 4).parameters(), lr=0.1, **options)
    return pycoll.DistributedOptimizer(inner, codec=codec)


@pytest.mark.parametrize(
    ("words", "call"),
    [
        ("codec is 'int8', wanted one of pycoll.codec", lambda: wrapped("int8")),
        ("codec is <class", lambda: wrapped(pycoll.Int8)),
        ("Compression: codec is None", lambda: pycoll.Compression(None)),
        ('residual is \'fp16\', wanted "fp32" or "bf16"', lambda: pycoll.Compression(pycoll.Int8(), residual="fp16")),
        ('clip is \'now\', wanted "before" or "after"', lambda: pycoll.Compression(pycoll.Int8(), clip="now")),
        ("momentum is 1.0", lambda: pycoll.Compression(pycoll.Int8(), momentum=1.0)),
        ("momentum is nan", lambda: pycoll.Compression(pycoll.Int8(), momentum=float("nan"))),
        ("momentum is 'x'", lambda: pycoll.Compression(pycoll.Int8(), momentum="x")),
        ("clip_norm is -1", lambda: pycoll.Compression(pycoll.Int8(), clip_norm=-1)),
        ("clip_norm is nan", lambda: pycoll.Compression(pycoll.Int8(), clip_norm=float("nan"))),
        ("clip_norm is None", lambda: pycoll.Compression(pycoll.Int8(), clip_norm=None)),
        ("dense_below is -1", lambda: pycoll.Compression(pycoll.Int8(), dense_below=-1)),
        ("dense_below is None", lambda: pycoll.Compression(pycoll.Int8(), dense_below=None)),
        ("has momentum 0.9", lambda: wrapped(pycoll.Compression(pycoll.Int8(), momentum=0.5), momentum=0.9)),
    ],
)
def test_bad_input_is_named(words, call):
    with pytest.raises(pycoll.InvalidArgument) as raised:
        call()
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)
