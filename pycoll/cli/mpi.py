"""Which MPI is here, and how its mpirun is told what we mean."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# Open MPI's mpirun refuses root unless told twice; in a container root is all there is.
AS_ROOT = {f"{prefix}_ALLOW_RUN_AS_ROOT{suffix}": "1" for prefix in ("OMPI", "PRTE") for suffix in ("", "_CONFIRM")}


@dataclass(frozen=True)
class Mpi:
    """An MPI's launcher: its path, "Open MPI", "MPICH" or "unknown", and the version as numbers."""

    mpirun: str
    vendor: str
    version: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.vendor} {'.'.join(map(str, self.version))}".strip()


@dataclass(frozen=True)
class Placement:
    """`ranks` in all, `here` of them on this machine of `cores`; hosts: "a:2,b:2" or ""; bind: auto, core or none."""

    ranks: int
    here: int
    cores: int
    hosts: str = ""
    bind: str = "auto"

    @property
    def crowded(self) -> bool:
        """More ranks than cores."""
        return self.here > self.cores

    @property
    def bound(self) -> int:
        """Cores that each rank is bound to; 0: none."""
        if self.bind == "none" or (self.bind == "auto" and self.crowded):
            return 0
        return max(1, self.cores // self.here)


def find_mpirun() -> str | None:
    """The mpirun of the running Python's environment, else of the active one, else of PATH."""
    places = [sys.prefix, os.environ.get("VIRTUAL_ENV"), os.environ.get("CONDA_PREFIX")]
    for place in filter(None, places):
        for name in ("mpirun", "mpiexec"):
            if os.access(found := Path(place, "bin", name), os.X_OK):
                return str(found)
    return shutil.which("mpirun") or shutil.which("mpiexec")


@cache
def identify(mpirun: str) -> Mpi:
    """Asks mpirun who it is."""
    try:
        env = os.environ | AS_ROOT
        done = subprocess.run([mpirun, "--version"], capture_output=True, text=True, timeout=20, env=env)
        said = done.stdout + done.stderr
    except (OSError, subprocess.SubprocessError) as error:
        said = str(error)
    for vendor, pattern in (
        ("Open MPI", r"\(Open(?: MPI|RTE)\)\s+v?([\d.]+)"),
        ("MPICH", r"HYDRA[\s\S]*?Version:\s+([\d.]+)"),
    ):
        if found := re.search(pattern, said):
            return Mpi(mpirun, vendor, tuple(int(number) for number in found[1].split(".") if number))
    return Mpi(mpirun, "unknown", ())


def command(mpi: Mpi, at: Placement, env: Mapping[str, str], program: Sequence[str]) -> list[str]:
    """The command line that starts `program` on every rank, with `env` added to its environment.

    Survivors of a rank's death go on, so that they can raise.
    """
    build = {"Open MPI": _open_mpi, "MPICH": _mpich}.get(mpi.vendor)
    flags = build(mpi, at, env) if build else []
    return [mpi.mpirun, *flags, "-n", str(at.ranks), *program]


def _open_mpi(mpi: Mpi, at: Placement, env: Mapping[str, str]) -> list[str]:
    flags = ["--with-ft", "ulfm"] if mpi.version >= (5,) else ["--mca", "orte_enable_recovery", "1"]
    if at.hosts:
        flags += ["--host", at.hosts]
    if at.crowded:
        flags += ["--map-by", ":OVERSUBSCRIBE"]
    elif at.bound > 1:
        flags += ["--map-by", f"slot:PE={at.bound}"]
    flags += ["--bind-to", "core" if at.bound else "none"]
    for name, value in env.items():
        flags += ["-x", f"{name}={value}"]
    return flags


def _mpich(_: Mpi, at: Placement, env: Mapping[str, str]) -> list[str]:
    flags = ["-disable-auto-cleanup", "-bind-to", f"core:{at.bound}" if at.bound else "none"]
    if at.hosts:
        flags += ["-hosts", at.hosts]
    for name, value in env.items():
        flags += ["-genv", name, value]
    return flags
