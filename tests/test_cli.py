"""`pycoll run`, `doctor` and `tune`, with real ranks."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pycoll.cli.mpi import Mpi, Placement, command, find_mpirun
from pycoll.cli.supervise import fate

PYCOLL = [sys.executable, "-m", "pycoll.cli"]
LAUNCHERS = [pytest.param("mpi", marks=pytest.mark.mpi), "env"]
RANK = 'next(int(os.environ[n]) for n in ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "RANK") if n in os.environ)'

pytestmark = pytest.mark.skipif(find_mpirun() is None, reason="no mpirun")


@pytest.fixture
def script(tmp_path):
    """Writes a rank's program, which knows `rank`, and gives its path."""

    def write(body: str) -> str:
        path = tmp_path / "program.py"
        path.write_text(f"import os, signal, sys, time\nrank = {RANK}\n{body}")
        return str(path)

    return write


def run(*words: str, timeout: float = 60) -> subprocess.CompletedProcess:
    return subprocess.run([*PYCOLL, "run", *words], capture_output=True, text=True, timeout=timeout)


def alive(mark: str) -> list[str]:
    """Command lines of living processes that contain `mark`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if mark in line and int(entry.parent.name) != os.getpid():
            found.append(line)
    return found


def flags(vendor: str, version: tuple[int, ...], ranks: int, cores: int, **more: str) -> str:
    at = Placement(ranks, ranks, cores, **more)
    return " ".join(command(Mpi("mpirun", vendor, version), at, {"A": "b"}, ["x"]))


def test_flags_of_open_mpi():
    assert flags("Open MPI", (5, 0, 11), 2, 2) == "mpirun --with-ft ulfm --bind-to core -x A=b -n 2 x"
    crowded = flags("Open MPI", (5, 0, 11), 3, 2)
    assert crowded == "mpirun --with-ft ulfm --map-by :OVERSUBSCRIBE --bind-to none -x A=b -n 3 x"
    assert "--map-by slot:PE=4 --bind-to core" in flags("Open MPI", (5, 0, 11), 2, 8)
    assert flags("Open MPI", (4, 1, 6), 2, 2).startswith("mpirun --mca orte_enable_recovery 1 ")
    assert "--host a:1,b:1" in flags("Open MPI", (5, 0, 11), 2, 2, hosts="a:1,b:1")


def test_flags_of_mpich():
    assert flags("MPICH", (5, 0, 2), 2, 2) == "mpirun -disable-auto-cleanup -bind-to core:1 -genv A b -n 2 x"
    assert "-bind-to none" in flags("MPICH", (5, 0, 2), 3, 2)
    assert "-hosts a,b" in flags("MPICH", (5, 0, 2), 2, 2, hosts="a,b")


def test_what_an_exit_code_says():
    assert fate(137) == "was ended by SIGKILL"
    assert fate(3) == "ended with exit code 3"


@pytest.mark.parametrize("launcher", LAUNCHERS)
class TestRun:
    def test_ranks_get_arguments_and_environment(self, launcher, script):
        program = script(
            "line = f\"{rank} {sys.argv[1:]} {os.environ['PYCOLL_TIMEOUT']} {os.environ['NAME']}\\n\"\n"
            "os.write(1, line.encode())"
        )
        done = run("--launcher", launcher, "--timeout", "7", "--env", "NAME=a b", "-n", "3", program, "-x", "c d")
        assert done.returncode == 0, done.stderr
        assert sorted(done.stdout.splitlines()) == [f"{rank} ['-x', 'c d'] 7 a b" for rank in range(3)]

    def test_tag_prefixes_lines(self, launcher, script):
        done = run("--launcher", launcher, "--tag", "-n", "2", script("print('one', rank); print('two', rank)"))
        assert sorted(done.stdout.splitlines()) == [
            f"[{rank}] {word} {rank}" for rank in (0, 1) for word in ("one", "two")
        ]

    def test_the_exit_code_is_that_of_the_rank_that_failed(self, launcher, script):
        done = run("--launcher", launcher, "-n", "2", script("sys.exit(3 if rank else 0)"))
        assert done.returncode == 3

    def test_survivors_go_on_when_a_rank_is_killed(self, launcher, script):
        body = "if rank == 1: os.kill(os.getpid(), 9)\ntime.sleep(2)\nos.write(1, f'survived {rank}\\n'.encode())"
        done = run("--launcher", launcher, "-n", "3", script(body))
        assert sorted(done.stdout.splitlines()) == ["survived 0", "survived 2"]
        assert "rank 1 was ended by SIGKILL; the others have 10 s to end" in done.stderr
        assert done.returncode == 137

    def test_survivors_that_hang_are_ended(self, launcher, script):
        program = script("signal.signal(signal.SIGTERM, signal.SIG_IGN)\nif rank == 1: sys.exit(5)\ntime.sleep(100)")
        start = time.monotonic()
        done = run("--launcher", launcher, "--grace", "0.5", "-n", "2", program)
        assert time.monotonic() - start < 15
        assert done.returncode == 5
        assert not alive(program)

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_signals_reach_the_ranks(self, launcher, script, number):
        program = script(
            "def leave(number, frame):\n    os.write(1, f'got {number}\\n'.encode()); sys.exit(0)\n"
            f"signal.signal({int(number)}, leave)\nprint('ready', flush=True)\ntime.sleep(100)"
        )
        line = [*PYCOLL, "run", "--launcher", launcher, "-n", "2", program]
        with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            assert [process.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
            process.send_signal(number)
            output, _ = process.communicate(timeout=30)
        assert output.splitlines() == [f"got {int(number)}"] * 2
        assert process.returncode == 128 + number
        assert not alive(program)

    def test_nothing_is_left_when_the_launcher_is_killed(self, launcher, script):
        program = script("print('ready', flush=True)\ntime.sleep(100)")
        line = [*PYCOLL, "run", "--launcher", launcher, "-n", "2", program]
        with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            assert [process.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
            process.kill()
        until = time.monotonic() + 15
        while alive(program) and time.monotonic() < until:
            time.sleep(0.1)
        assert not alive(program)

    def test_ranks_find_each_other(self, launcher, script):
        body = (
            "import os, numpy, pycoll\nwith pycoll.init() as comm:\n"
            "    sums = comm.allreduce(numpy.ones(3)).tolist()\n"
            "    os.write(1, f'{comm.rank} {comm.size} {sums}\\n'.encode())  # one write: lines of ranks do not mix"
        )
        done = run("--launcher", launcher, "-n", "3", script(body))
        assert done.returncode == 0, done.stderr
        assert sorted(done.stdout.splitlines()) == [f"{rank} 3 [3.0, 3.0, 3.0]" for rank in range(3)]


def test_dry_run_starts_nothing(script):
    done = run("--dry-run", "-n", "2", script("print('started')"))
    assert "mpi" in done.stdout
    assert done.stdout.rstrip().endswith("program.py")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["no_such.py"], "no such script: no_such.py"),
        (["no-such-program"], "neither a .py script nor a program"),
        (["-n", "0", "ls"], "at least one rank"),
        (["--env", "SURELY_UNSET", "ls"], "give it as SURELY_UNSET=VALUE"),
        (["--launcher", "env", "--hosts", "a,b", "ls"], "--hosts needs an MPI"),
    ],
)
def test_what_cannot_be_started_is_said(words, sentence):
    done = run(*words)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.mpi
def test_doctor():
    done = subprocess.run([*PYCOLL, "doctor", "--json"], capture_output=True, text=True, timeout=120)
    checks = json.loads(done.stdout)
    assert done.returncode == 0, done.stdout
    assert {"Python", "pycoll", "SIMD", "MPI", "MPI transport", "MPI ranks", "shared memory", "cores"} <= {
        check["name"] for check in checks
    }
    assert all(check["mend"] for check in checks if check["status"] != "ok")


@pytest.mark.mpi
def test_doctor_sees_too_many_ranks():
    done = subprocess.run([*PYCOLL, "doctor", "--json", "-n", "4096"], capture_output=True, text=True, timeout=120)
    (cores,) = [check for check in json.loads(done.stdout) if check["name"] == "cores"]
    assert cores["status"] == "warn"
    assert "they take turns" in cores["found"]


@pytest.mark.mpi
def test_tune_writes_a_table_that_init_reads(tmp_path, script):
    table = tmp_path / "pycoll" / "tuned.json"
    line = [
        *PYCOLL,
        "tune",
        "--collectives",
        "allreduce",
        "--most",
        "1024",
        "--seconds",
        "0.005",
        "--output",
        str(table),
    ]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    entries = json.loads(table.read_text())["entries"]
    assert [entry["bytes"] for entry in entries] == [64, 256, 1024]
    assert {(entry["collective"], entry["transport"], entry["ranks"]) for entry in entries} == {("allreduce", "shm", 2)}
    program = script("import numpy, pycoll\nprint(pycoll.init().allreduce(numpy.ones(256))[0])")
    done = run("--env", f"PYCOLL_TUNED={table}", "-n", "2", program)
    assert done.stdout.split() == ["2.0", "2.0"], done.stderr
