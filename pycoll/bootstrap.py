"""Makes a communicator out of processes: who is on which node, shared memory among them, MPI between them."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import _core
from .errors import Error, TransportError
from .exchange import Exchange
from .settings import Settings, log


@dataclass(frozen=True)
class Group:
    """What _core.Communicator is made from, and what its ranks know of each other."""

    node: Any
    world: Any | None
    node_of: list[int]
    hosts: list[str]
    settings: Settings


def node_key() -> str:
    """Equal for processes that can share memory: one kernel, one PID and one IPC namespace, one host name."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    spaces = [str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in ("pid", "ipc")]
    return " ".join([socket.gethostname(), boot, *spaces])


def make_group(exchange: Exchange, settings: Settings, mpi: Any | None = None, handle: int = 0) -> Group:
    """Collective over the exchange. `mpi` and `handle`: the module _mpi and a communicator of the same ranks, if any.

    Raises TransportError on every rank if any rank could not do its part.
    """
    pid, started = _core.process_id()
    mine = {
        "host": socket.gethostname(),
        "node": node_key(),
        "pid": pid,
        "started": started,
        "cores": sorted(os.sched_getaffinity(0)),
        "rules": settings.rules if exchange.rank == 0 else [],
        "settings": [settings.transport, settings.algo],
    }
    facts = [json.loads(fact) for fact in exchange.allgather(json.dumps(mine).encode())]
    _want_same_settings(facts)
    keys = list(dict.fromkeys(fact["node"] for fact in facts))
    node_of = [keys.index(fact["node"]) for fact in facts]
    neighbours = [rank for rank in range(exchange.size) if node_of[rank] == node_of[exchange.rank]]
    if len(keys) > 1 and (mpi is None or settings.transport == "shm"):
        why = "transport is shm" if settings.transport == "shm" else "they were not started by MPI"
        raise TransportError(
            f"init: ranks are on {len(keys)} nodes ({', '.join(k.split()[0] for k in keys)}), but {why}; "
            "memory is shared inside one node only: start them with mpirun or srun"
        )

    members = [
        _core.Member(rank, facts[rank]["host"], facts[rank]["pid"], facts[rank]["started"]) for rank in neighbours
    ]
    segment = _share_segment(
        exchange, neighbours, _core.ShmTransport.segment_bytes(len(neighbours)), [f["pid"] for f in facts]
    )
    cores = len(set().union(*(facts[rank]["cores"] for rank in neighbours)))
    node = _core.ShmTransport(segment, neighbours.index(exchange.rank), members, cores)

    world = None
    if len(keys) > 1 or (settings.transport == "mpi" and exchange.size > 1):
        if mpi is None:
            raise TransportError(
                "init: transport is mpi, but this process was not started by MPI; start it with mpirun or srun"
            )
        everyone = [_core.Member(rank, f["host"], f["pid"], f["started"]) for rank, f in enumerate(facts)]
        world = mpi.transport(mpi.duplicate(handle, settings.timeout), node, everyone)
    chosen = Settings(settings.timeout, settings.transport, settings.algo, [tuple(rule) for rule in facts[0]["rules"]])
    if exchange.rank == 0:
        log.info(
            "%d ranks on %d nodes over %s, %d cores here",
            exchange.size,
            len(keys),
            world.name if world else "shm",
            cores,
        )
    return Group(node, world, node_of, [fact["host"] for fact in facts], chosen)


def _want_same_settings(facts: list[dict[str, Any]]) -> None:
    for rank, fact in enumerate(facts):
        if fact["settings"] != facts[0]["settings"]:
            raise TransportError(
                f"init: rank {rank} has transport and algo {fact['settings']}, rank 0 {facts[0]['settings']}; "
                "PYCOLL_TRANSPORT and PYCOLL_ALGO must be the same on all ranks"
            )


def _share_segment(exchange: Exchange, neighbours: list[int], nbytes: int, pids: list[int]) -> Any:
    """One segment for a node's ranks: the first creates it, the others open it. All raise what one could not do."""
    leader = neighbours[0]
    segment, error, fd = None, "", -1
    if exchange.rank == leader:
        try:
            segment = _core.Segment.create(nbytes)
            fd = segment.fd
        except Error as failure:
            error = str(failure)
    offer = json.loads(exchange.allgather(json.dumps({"fd": fd, "error": error}).encode())[leader])
    error = offer["error"]
    if exchange.rank != leader and not error:
        try:
            segment = _core.Segment.open(pids[leader], offer["fd"], nbytes)
        except Error as failure:
            error = str(failure)
    outcomes = [text.decode() for text in exchange.allgather(error.encode())]
    for rank, outcome in enumerate(outcomes):
        if outcome:
            raise TransportError(f"init: rank {rank}: {outcome}")
    assert segment is not None
    segment.close_fd()  # all have it open: from here on it lives exactly as long as they do
    return segment
