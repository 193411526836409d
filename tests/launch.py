"""Runs a script on several ranks, with a hard time limit and no process left behind."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

LAUNCHERS = ("shm", "mpi", "torchrun", "python")
MARK = "PYCOLL_TEST_RUN"  # in the environment of every process of a run, so that all of them are found again
GRACE = 5.0  # seconds between asking a launcher to end its ranks and killing what is left


@dataclass
class Run:
    """What one run left behind."""

    command: list[str]
    returncode: int
    stdout: str
    stderr: str
    seconds: float
    timed_out: bool
    leftovers: list[str] = field(default_factory=list)  # command lines of processes that outlived their launcher

    @property
    def ok(self) -> bool:
        return self.returncode == 0 and not self.timed_out

    def __str__(self) -> str:
        how = "timed out" if self.timed_out else f"returned {self.returncode}"
        return f"{' '.join(self.command)}: {how} after {self.seconds:.1f} s\n{self.stdout}\n{self.stderr}"


def run_ranks(
    script: str | Path,
    n: int,
    launcher: str = "shm",
    args: Sequence[str] = (),
    timeout: float = 60,
    *,
    env: Mapping[str, str] | None = None,
    survive: bool = False,
) -> Run:
    """Run `script` on `n` ranks and wait.

    Args:
        script: a Python file, run by this interpreter.
        n: number of ranks, also beyond the number of cores.
        launcher: "shm" (mpirun, shared memory transport), "mpi" (mpirun, MPI transport), "torchrun", or "python"
            (the script starts its ranks itself).
        args: the script's arguments.
        timeout: seconds; after it exactly this run's processes are ended, by SIGTERM and then SIGKILL.
        env: set on top of this process's environment.
        survive: the launcher leaves the other ranks alive when one dies.
    """
    command = command_for(launcher, n, survive=survive) + [str(script), *args]
    mark = uuid.uuid4().hex
    environment = dict(os.environ, OMP_NUM_THREADS="1", **{MARK: mark})
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', '')}"
    if launcher in ("shm", "mpi"):
        environment["PYCOLL_TRANSPORT"] = launcher
        for prefix in ("OMPI", "PRTE"):
            environment[f"{prefix}_ALLOW_RUN_AS_ROOT"] = environment[f"{prefix}_ALLOW_RUN_AS_ROOT_CONFIRM"] = "1"
    environment.update(env or {})

    # Files, not pipes: a process that outlives the launcher would keep a pipe open and this function waiting.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        begin = time.monotonic()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment, start_new_session=True
        )
        timed_out = False
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            timed_out = True
        finally:  # also when the test itself is interrupted
            if process.poll() is None:
                process.terminate()  # launchers pass it on to their ranks, which have process groups of their own
                _wait_quietly(process)
            time.sleep(0 if timed_out else 0.05)  # a rank whose launcher has just returned may be on its way out
            leftovers = _kill_marked(mark)
            process.wait()
        seconds = time.monotonic() - begin
        texts = [_text(file) for file in (out, err)]
    return Run(command, process.returncode, *texts, seconds, timed_out, [] if timed_out else leftovers)


def command_for(launcher: str, n: int, *, survive: bool = False) -> list[str]:
    """The command line up to the script, without the environment that run_ranks() adds."""
    if launcher not in LAUNCHERS:
        raise ValueError(f"launcher must be one of {LAUNCHERS}, got {launcher!r}")
    if launcher == "python":
        return [sys.executable]
    if launcher == "torchrun":
        return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n}"]
    kind = mpi_kind()
    if kind is None:
        raise RuntimeError("no mpirun beside this Python nor on PATH")
    if survive:
        # mpirun alone ends the others as soon as a rank ends badly, or does not tell how it ended.
        return [sys.executable, "-m", "pycoll.cli", "run", "--launcher", "mpi", "-n", str(n)]
    command = [str(mpirun()), "-n", str(n)]
    if kind == "openmpi":
        # --bind-to none: by default two ranks are bound to a core each, and their progress threads with them.
        command += ["--map-by", ":OVERSUBSCRIBE", "--bind-to", "none"]
    return [*command, sys.executable]


def available(launcher: str) -> bool:
    """True if this Python can start ranks in that way."""
    if launcher == "torchrun":
        import importlib.util

        return importlib.util.find_spec("torch") is not None
    return mpi_kind() is not None


def mpirun() -> Path | None:
    """The mpirun that belongs to this Python, else the one on PATH."""
    own = Path(sys.prefix) / "bin" / "mpirun"
    if own.exists():
        return own
    found = shutil.which("mpirun")
    return Path(found) if found else None


@functools.cache
def mpi_kind() -> str | None:
    """Whose mpirun it is: "openmpi", "mpich" (any launcher of that family), or None."""
    path = mpirun()
    if path is None:
        return None
    version = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30)
    return "openmpi" if "Open MPI" in version.stdout + version.stderr else "mpich"


def _wait_quietly(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        pass


def _kill_marked(mark: str) -> list[str]:
    """Kills every process that carries this run's mark, however it was started; returns their command lines."""
    wanted = f"{MARK}={mark}".encode()
    killed = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if wanted not in (path / "environ").read_bytes().split(b"\0"):
                continue
            line = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            os.kill(int(path.name), signal.SIGKILL)
            killed.append(line)
        except (OSError, ValueError):
            continue  # it has gone, or belongs to somebody else
    return killed


def _text(file: tempfile._TemporaryFileWrapper) -> str:  # type: ignore[type-arg]
    file.seek(0)
    return file.read().decode(errors="replace")
