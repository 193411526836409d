"""Finds out how this process was started, and by whose MPI."""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType

from .errors import TransportError

OPEN_MPI, MPICH = "Open MPI", "MPICH"


def mpi_launcher() -> str | None:
    """The MPI whose mpirun started this process: "Open MPI", "MPICH", "another MPI", or None if none did."""
    env = os.environ
    if "OMPI_COMM_WORLD_SIZE" in env:
        return OPEN_MPI
    if "PMI_RANK" in env:
        return MPICH  # hydra: MPICH and its kin
    if "PMIX_RANK" in env:
        return "another MPI"  # srun --mpi=pmix
    return None


def store_launcher() -> bool:
    """True if the environment is that of torchrun: a store at MASTER_ADDR:MASTER_PORT, RANK, WORLD_SIZE."""
    return all(name in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"))


def mpi4py_initialized() -> bool:
    """True if this program has imported mpi4py's MPI, so that MPI is up already."""
    return "mpi4py.MPI" in sys.modules


def build_vendor() -> str:
    """The MPI that pycoll was built against, with its version; empty if none."""
    from . import _build_info

    return f"{_build_info.MPI_VENDOR} {_build_info.MPI_VERSION}".strip()


def load_mpi() -> ModuleType:
    """The module _mpi, ready for use. Raises TransportError with one sentence that says what does not fit."""
    from . import _build_info

    built, started = _build_info.MPI_VENDOR, mpi_launcher()
    rebuild = (
        "install pycoll again in the environment whose MPI starts it (pip install --force-reinstall --no-cache-dir .)"
    )
    if not built:
        raise TransportError(f"pycoll was built without MPI, but {started or 'the program'} asks for it; {rebuild}")
    if started in (OPEN_MPI, MPICH) and started != built:
        raise TransportError(
            f"pycoll was built against {build_vendor()}, but this process was started by {started}'s mpirun, so its "
            f"ranks would not find each other; start it with {built}'s mpirun, or {rebuild}"
        )
    try:
        mpi = importlib.import_module("pycoll._mpi")
    except ImportError as error:
        raise TransportError(
            f"pycoll was built against {build_vendor()}, whose library cannot be loaded here ({error}); {rebuild}"
        ) from None
    found = mpi.library()
    if not found.startswith(built):
        raise TransportError(
            f"pycoll was built against {build_vendor()}, but the MPI library loaded is {found.split(',')[0]}; {rebuild}"
        )
    return mpi
