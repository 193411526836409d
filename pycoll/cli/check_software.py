"""`pycoll doctor`: Python, the compiled core, torch, CUDA, mpi4py."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys
from pathlib import Path

from .check import Check, fail, ok, warn

# The processor's flags (as Linux names them) that each body of the kernels needs, best first.
SIMD = {"avx512": {"avx512f", "avx512bw", "avx512vl", "avx512dq"}, "avx2": {"avx2", "f16c"}}
CHECKOUT = Path(__file__).resolve().parents[2]
REINSTALL = (
    f"cd {CHECKOUT if (CHECKOUT / 'CMakeLists.txt').exists() else 'pycoll'} && "
    "pip install --force-reinstall --no-deps --no-cache-dir ."
)


def installed(package: str) -> str:
    """Its version, or ""."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def python() -> Check:
    return ok("Python", f"{sys.version.split()[0]} at {sys.executable}")


def core() -> list[Check]:
    try:
        from pycoll import _build_info, _core
    except ImportError as error:
        return [fail("pycoll", f"the compiled core does not load: {error}", REINSTALL)]
    built = ok("pycoll", f"{_build_info.VERSION}, built with {_build_info.COMPILER}")
    return [built, simd(_core.simd())]


def simd(used: str) -> Check:
    flags = set()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            flags = set(line.split(":", 1)[1].split())
            break
    best = next((name for name, needed in SIMD.items() if needed <= flags), "scalar")
    if used == best or best == "scalar":
        return ok("SIMD", used)
    if "PYCOLL_SIMD" in os.environ:
        return warn("SIMD", f"{used}, where this processor has {best}", "unset PYCOLL_SIMD")
    return warn("SIMD", f"{used}, where this processor has {best}", REINSTALL)


def torch() -> Check:
    version = installed("torch")
    if not version:
        return warn("torch", "not installed: no DistributedOptimizer, no torchrun", "pip install torch")
    return ok("torch", version)


def mpi4py() -> Check:
    version = installed("mpi4py")
    if not version:
        return warn("mpi4py", "not installed: no Communicator.from_mpi", "pip install mpi4py")
    return ok("mpi4py", version)


def gpu() -> str:
    """The first GPU's name, or ""."""
    try:
        folder = next(Path("/proc/driver/nvidia/gpus").iterdir())
        lines = (folder / "information").read_text().splitlines()
    except (OSError, StopIteration):
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("Model")), "NVIDIA GPU")


def cuda() -> Check:
    name = gpu()
    if not name:
        return ok("CUDA", "no GPU")
    try:
        there = importlib.util.find_spec("pycoll._cuda") is not None
    except ImportError:
        there = False
    if there:
        return ok("CUDA", f"{name}, with the CUDA kernels")
    return warn(
        "CUDA", f"{name}, but pycoll was built without nvcc", f"export PATH=/usr/local/cuda/bin:$PATH; {REINSTALL}"
    )


def everything() -> list[Check]:
    return [python(), *core(), torch(), mpi4py(), cuda()]
