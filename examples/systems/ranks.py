"""Starts the ranks: on this machine, or one on each of several hosts (network namespaces) with shaped links."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 900  # seconds until a run is ended, whatever it does
sys.path.append(str(ROOT / "tools" / "hosts"))


def here(ranks, command):
    """Runs `command` (a script and its arguments) on so many ranks. Raises SystemExit if they fail."""
    line = [sys.executable, "-m", "pycoll.cli", "run", "-n", str(ranks), *command]
    try:
        code = subprocess.run(line, timeout=PATIENCE).returncode
    except subprocess.TimeoutExpired:
        sys.exit(f"{command[0]}: the ranks did not end within {PATIENCE} s")
    if code:
        sys.exit(code)


def on_hosts(ranks, rate, delay, command):
    """The same with a host for each rank, on links of `rate` ("100mbit") with a one-way `delay` ("1ms", "")."""
    from hosts import Hosts, missing

    if why := missing() or mpi_missing():
        sys.exit(f"--link: {why}")
    with Hosts(ranks, rate, delay) as hosts:
        line = hosts.ranks(Path(sys.prefix), 1, ["env", "OMP_NUM_THREADS=1", sys.executable, *command])
        result = hosts.run(line, PATIENCE, stderr=sys.stderr)
    print(result.stdout, end="")
    if result.returncode is None:
        sys.exit(f"{command[0]}: the ranks did not end within {PATIENCE} s")
    if result.returncode:
        sys.exit(result.returncode)


def mpi_missing():
    """Between hosts ranks are started by MPI; what is missing of it, as one sentence."""
    there = any((Path(sys.prefix) / "bin" / name).exists() for name in ("mpirun", "mpiexec"))
    return "" if there else "ranks on several hosts are started by an MPI, and there is none beside this Python"
