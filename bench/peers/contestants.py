"""Who takes part, and with which settings: each peer at its default, and at the settings that make it fastest."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .environments import INTEL_MPI, MPICH, ONECCL, OPEN_MPI, Environment, NotToBeHad, native

COLLECTIVES = ("allreduce", "reduce_scatter", "allgather", "broadcast", "alltoall")

# What a user of malloc() can switch on to get 2 MiB pages (glibc 2.35 and later).
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
AS_ROOT = {f"{prefix}_ALLOW_RUN_AS_ROOT{confirm}": "1" for prefix in ("OMPI", "PRTE") for confirm in ("", "_CONFIRM")}

Command = Callable[[int], list[str]]


@dataclass(frozen=True)
class Contestant:
    """A library with its settings, on one kind of memory.

    library: contestants of one library are settings of it, of which the fastest counts.
    kind: "peer", "pycoll", "bare" (what it does, without what a library must do) or "roofline". level: "C", or "Python"
    where the calls are made from there.
    command: for so many ranks; raises NotToBeHad. oversubscribed: variables set with more ranks than cores.
    """

    name: str
    library: str
    kind: str
    level: str
    command: Command
    variables: dict[str, str] = field(default_factory=dict)
    oversubscribed: dict[str, str] = field(default_factory=dict)
    memory: str = "private"
    collectives: tuple[str, ...] = COLLECTIVES
    environment: Environment | None = None

    def variables_for(self, ranks: int, cores: int) -> dict[str, str]:
        chosen = dict(self.variables)
        if ranks > cores:
            chosen.update(self.oversubscribed)
        return chosen

    def settings_for(self, ranks: int, cores: int) -> dict[str, str]:
        """The variables that are a choice, not what it takes to start."""
        return {k: v for k, v in self.variables_for(ranks, cores).items() if k not in AS_ROOT}


def _started_by(environment: Environment, *options: str, program: tuple[str, ...] = ()) -> Command:
    """mpirun of the environment on its program."""

    def command(ranks: int) -> list[str]:
        environment.make()
        mpirun = str(environment.folder / "bin" / "mpirun")
        return [mpirun, "-n", str(ranks), *options, *(program or (str(environment.program),))]

    return command


def _forking(program: str) -> Command:
    return lambda ranks: [str(native(program)), str(ranks)]


def _python(library: str, module: str) -> Command:
    """This Python with rank.py, a process a rank, which meet at torch's store."""

    def command(ranks: int) -> list[str]:
        for needed in dict.fromkeys((module, "torch")):
            if importlib.util.find_spec(needed) is None:
                raise NotToBeHad(f"{needed} is not installed beside {sys.executable}")
        return [sys.executable, str(Path(__file__).with_name("start.py")), str(ranks), library]

    return command


# Ranks bind themselves once they have started, all contestants' alike.
OPEN_MPI_OPTIONS = ("--map-by", ":OVERSUBSCRIBE", "--bind-to", "none")


def _open_mpi(setting: str, collectives: tuple[str, ...] = COLLECTIVES, **variables: str) -> Contestant:
    return Contestant(
        f"Open MPI, {setting}",
        "Open MPI",
        "peer",
        "C",
        _started_by(OPEN_MPI, *OPEN_MPI_OPTIONS),
        {**AS_ROOT, **variables},
        {"OMPI_MCA_mpi_yield_when_idle": "1"},
        collectives=collectives,
        environment=OPEN_MPI,
    )


def _mpich(setting: str, collectives: tuple[str, ...] = COLLECTIVES, **variables: str) -> Contestant:
    return Contestant(
        f"MPICH, {setting}",
        "MPICH",
        "peer",
        "C",
        _started_by(MPICH),
        variables,
        # What it calls yielding still takes a time slice a step; sleeping after every poll in vain does not.
        {"MPIR_CVAR_CH4_PROGRESS_THROTTLE": "1", "MPIR_CVAR_CH4_PROGRESS_THROTTLE_NO_PROGRESS_COUNT": "1"},
        collectives=collectives,
        environment=MPICH,
    )


# Intel's launcher pins ranks before they bind themselves. oneCCL counts on it while there are enough cores (28 ms a
# call without), and both are slower with it when there are not.
UNPINNED = {"I_MPI_PIN": "0"}


def _intel_mpi(setting: str, collectives: tuple[str, ...] = COLLECTIVES, **variables: str) -> Contestant:
    return Contestant(
        f"Intel MPI, {setting}",
        "Intel MPI",
        "peer",
        "C",
        _started_by(INTEL_MPI),
        variables,
        UNPINNED,  # and it yields by itself
        collectives=collectives,
        environment=INTEL_MPI,
    )


def _oneccl(setting: str, **variables: str) -> Contestant:
    return Contestant(
        f"oneCCL, {setting}",
        "oneCCL",
        "peer",
        "C",
        _started_by(ONECCL),
        variables,
        {"CCL_YIELD": "sched_yield", **UNPINNED},
        environment=ONECCL,
    )


def _pycoll(name: str, memory: str, level: str, **variables: str) -> Contestant:
    command = _forking("pycoll_rank") if level == "C" else _python("pycoll", "pycoll")
    return Contestant(name, "pycoll", "pycoll", level, command, variables, memory=memory)


def _roofline(stores: str) -> Contestant:
    name = f"roofline, {stores} stores"
    return Contestant(
        name, "roofline", "roofline", "C", _forking("roofline"), memory=stores, collectives=("allreduce",)
    )


def _bare(name: str, program: str, memory: str) -> Contestant:
    def command(ranks: int) -> list[str]:
        if ranks > len(os.sched_getaffinity(0)):
            raise NotToBeHad("its ranks spin, and want a core each")
        return _forking(program)(ranks)

    return Contestant(f"bare, {name}", "bare", "bare", "C", command, memory=memory, collectives=("allreduce",))


SEGMENTED_RING = {
    "OMPI_MCA_coll_tuned_use_dynamic_rules": "1",
    "OMPI_MCA_coll_tuned_allreduce_algorithm": "5",
    "OMPI_MCA_coll_tuned_allreduce_algorithm_segmentsize": str(256 << 10),
}
# By itself it declines where there is no InfiniBand.
UCX = {"OMPI_MCA_pml": "ucx", "OMPI_MCA_opal_common_ucx_tls": "any", "OMPI_MCA_opal_common_ucx_devices": "any"}
RELEASE_GATHER = {
    "MPIR_CVAR_ALLREDUCE_POSIX_INTRA_ALGORITHM": "release_gather",
    "MPIR_CVAR_BCAST_POSIX_INTRA_ALGORITHM": "release_gather",
    "MPIR_CVAR_POSIX_NUM_COLLS_THRESHOLD": "0",
    "MPIR_CVAR_COLL_SHM_LIMIT_PER_NODE": str(256 << 10),  # KiB
    "MPIR_CVAR_REDUCE_INTRANODE_BUFFER_TOTAL_SIZE": str(1 << 20),
    "MPIR_CVAR_BCAST_INTRANODE_BUFFER_TOTAL_SIZE": str(1 << 20),
}

# Its worker threads want cores of their own; without them, and with its MPI's algorithms, small messages take less.
NO_WORKER = {
    "CCL_WORKER_OFFLOAD": "0",
    **{f"CCL_{name}": "direct" for name in ("ALLREDUCE", "REDUCE_SCATTER", "ALLGATHER", "BCAST", "ALLTOALL")},
}

CONTESTANTS = (
    _open_mpi("default"),
    _open_mpi("huge pages", **HUGE_PAGES),
    _open_mpi("segmented ring, huge pages", ("allreduce",), **HUGE_PAGES, **SEGMENTED_RING),
    _open_mpi("UCX", **UCX),
    _mpich("default"),
    _mpich("release-gather", ("allreduce", "broadcast"), **RELEASE_GATHER),
    _intel_mpi("default"),
    _intel_mpi("algorithm 8", ("allreduce",), I_MPI_ADJUST_ALLREDUCE="8"),
    _oneccl("default"),
    _oneccl("no worker, direct", **NO_WORKER),
    _pycoll("pycoll, private", "private", "C"),
    _pycoll("pycoll, private, huge pages", "private", "C", **HUGE_PAGES),
    _pycoll("pycoll, symmetric", "symmetric", "C"),
    _bare("private", "bare", "ordinary"),
    _bare("private, streaming stores", "bare", "streaming"),
    _bare("symmetric", "roofline", "met"),
    _roofline("ordinary"),
    _roofline("streaming"),
    Contestant(
        "mpi4py on Open MPI",
        "mpi4py",
        "peer",
        "Python",
        _started_by(
            OPEN_MPI,
            *OPEN_MPI_OPTIONS,
            program=(str(OPEN_MPI.python), str(Path(__file__).with_name("rank.py")), "mpi4py"),
        ),
        AS_ROOT,
        {"OMPI_MCA_mpi_yield_when_idle": "1"},
        environment=OPEN_MPI,
    ),
    Contestant(
        "torch, Gloo",
        "Gloo",
        "peer",
        "Python",
        _python("gloo", "torch"),
    ),
    _pycoll("pycoll from Python, private", "private", "Python"),
    _pycoll("pycoll from Python, symmetric", "symmetric", "Python"),
)
