"""Every way to start ranks, and to end them: pycoll.init() finds out, says what is wrong, and leaves nothing behind."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from launch import available, mpi_kind, run_ranks

WORKER = Path(__file__).parent / "workers" / "start.py"
LAUNCHED = re.compile("OMPI_|PMI|PMIX|PRTE|PYCOLL_|RANK$|WORLD_SIZE|MASTER_")
mpi = [pytest.mark.mpi, pytest.mark.skipif(not available("mpi"), reason="no mpirun")]
over_mpi = [pytest.param(launcher, marks=mpi) for launcher in ("shm", "mpi")]
torchrun = pytest.param("torchrun", marks=pytest.mark.skipif(not available("torchrun"), reason="no torch"))


def clean_environment(**more):
    return {name: value for name, value in os.environ.items() if not LAUNCHED.match(name)} | more


def alone(program, timeout=60, **env):
    """A Python process without any launcher."""
    env, here = clean_environment(**env), WORKER.parent  # not the checkout: "-c" would import the sources there
    command = [sys.executable, *program]
    return subprocess.run(command, env=env, cwd=here, capture_output=True, text=True, timeout=timeout)


def last_line(text):
    return text.strip().splitlines()[-1]


def shared_memory():
    """What is in /dev/shm but for files of an MPI: a killed rank cannot remove its own, and others may be running."""
    names = {entry.name for entry in Path("/dev/shm").iterdir()}
    return {name for name in names if not re.match("sm_segment|vader|osc|mpich|shm_mpich|ucx", name)}


def said_ok(run, n, case, transport):
    assert run.ok, run
    wanted = [f"{rank} of {n} {case} ok {transport}" for rank in range(n)]
    assert all(line in run.stdout for line in wanted), run
    assert run.leftovers == []


def test_alone():
    done = alone([WORKER, "plain"])
    assert done.stdout == "0 of 1 plain ok alone\n", done.stderr


def test_alone_in_the_environment_of_one_rank():
    done = alone([WORKER, "plain"], RANK="0", WORLD_SIZE="1", MASTER_ADDR="localhost", MASTER_PORT="1")
    assert done.stdout == "0 of 1 plain ok alone\n", done.stderr


@pytest.mark.parametrize("launcher", [*over_mpi, torchrun])
def test_launchers(launcher):
    said_ok(run_ranks(WORKER, 3, launcher, ["plain"]), 3, "plain", "mpi" if launcher == "mpi" else "shm")


@pytest.mark.parametrize("case", ["mpi4py_before", "mpi4py_after"])
@pytest.mark.parametrize("launcher", over_mpi)
def test_shares_mpi_with_mpi4py(launcher, case):
    pytest.importorskip("mpi4py")
    said_ok(run_ranks(WORKER, 2, launcher, [case]), 2, case, launcher)


@pytest.mark.skipif(not available("torchrun"), reason="no torch")
def test_torch_multiprocessing(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    program = tmp_path / "spawn.py"
    program.write_text(f"""
import os, sys
import torch.multiprocessing as mp
sys.path.insert(0, {str(WORKER.parent)!r})

def main(rank):
    os.environ.update(RANK=str(rank), WORLD_SIZE="3", MASTER_ADDR="localhost", MASTER_PORT="{port}")
    import start
    comm = start.plain()
    print(f"{{comm.rank}} of {{comm.size}} spawned ok {{comm.transport}}", flush=True)

if __name__ == "__main__":
    mp.spawn(main, nprocs=3)
""")
    done = alone([program])
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == [f"{rank} of 3 spawned ok shm" for rank in range(3)]


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        ({"PYCOLL_TIMEOUT": "soon"}, "InvalidArgument: init: PYCOLL_TIMEOUT is 'soon', wanted seconds, more than 0"),
        ({"PYCOLL_TIMEOUT": "-3"}, "InvalidArgument: init: PYCOLL_TIMEOUT is '-3', wanted seconds, more than 0"),
        ({"PYCOLL_TIMEOUT": "nan"}, "InvalidArgument: init: PYCOLL_TIMEOUT is 'nan', wanted seconds, more than 0"),
        ({"PYCOLL_TRANSPORT": "tcp"}, "InvalidArgument: init: transport is 'tcp', wanted auto, shm or mpi"),
        ({"PYCOLL_ALGO": "quick"}, 'InvalidArgument: algo is "quick", wanted one of auto'),
        ({"PYCOLL_LOG": "loud"}, "InvalidArgument: init: PYCOLL_LOG is 'loud', wanted"),
    ],
)
def test_nonsense_in_the_environment(env, sentence):
    done = alone(["-c", "import pycoll; pycoll.init()"], **env)
    assert done.returncode == 1
    assert sentence in last_line(done.stderr)


@pytest.mark.skipif(not available("torchrun"), reason="no torch")
def test_mpi_asked_for_without_mpi():
    run = run_ranks(WORKER, 2, "torchrun", ["plain"], env={"PYCOLL_TRANSPORT": "mpi"})
    assert run.returncode != 0 and not run.timed_out
    assert "TransportError: init: transport is mpi, but this process was not started by MPI" in run.stderr


@pytest.mark.parametrize("launcher", over_mpi)
def test_ranks_with_different_settings(launcher, tmp_path):
    program = tmp_path / "program.py"
    rank = "OMPI_COMM_WORLD_RANK" if mpi_kind() == "openmpi" else "PMI_RANK"
    program.write_text(f"""
import os
os.environ["PYCOLL_ALGO"] = ["ring", "tree"][int(os.environ["{rank}"])]
import pycoll
try:
    pycoll.init(timeout=20)
except pycoll.TransportError as error:
    print(f"sentence: {{error}}", flush=True)
""")
    run = run_ranks(program, 2, launcher)
    assert run.ok, run
    sentences = re.findall(r"sentence: .*?on all ranks", run.stdout)
    assert len(sentences) == 2 and len(set(sentences)) == 1, run
    assert f"rank 1 has transport and algo ['{launcher}', 'tree'], rank 0 ['{launcher}', 'ring']" in sentences[0]


@pytest.mark.skipif(not available("torchrun"), reason="no torch")
def test_a_rank_that_never_comes():
    run = run_ranks(WORKER, 2, "torchrun", ["silent"], timeout=50)
    assert run.returncode != 0 and not run.timed_out
    assert re.search("(Timeout|TransportError): init: rank 0 of 2: .* timeout after 2000ms", run.stderr), run


@pytest.mark.parametrize(("case", "words"), [("plain", ""), ("raises", "ZeroDivisionError"), ("killed", "PeerFailed")])
@pytest.mark.parametrize("launcher", [*over_mpi, torchrun])
def test_nothing_is_left_behind(launcher, case, words):
    before = shared_memory()
    run = run_ranks(WORKER, 3, launcher, [case], timeout=50, survive=True)
    assert not run.timed_out and run.ok == (case == "plain"), run
    if launcher != "torchrun":  # which ends the survivors at once
        assert words in run.stdout + run.stderr, run
    assert shared_memory() <= before
    assert run.leftovers == []
