"""Starts a contestant's ranks, one a host, and puts what they measured together."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from .contestants import Contestant
from .task import Task, write

BENCH = Path(__file__).resolve().parent.parent
PORT = "29517"


class RunFailed(Exception):
    """A contestant's ranks ended with an error, or not in time."""


def start(hosts: Any, contestant: Contestant, seed: int, task: Task, beyond: int, timeout: float) -> dict[str, Any]:
    """One training run. Raises RunFailed."""
    with tempfile.TemporaryDirectory() as folder:
        write(seed, Path(folder, "data.npz"))
        worker = [sys.executable, "-m", "accuracy.rank", contestant.name, str(seed), folder]
        worker += [json.dumps(dataclasses.asdict(task)), str(beyond)]
        worker = ["env", f"PYTHONPATH={BENCH}", "OMP_NUM_THREADS=1", *worker]
        if contestant.library == "gloo":
            result, others = _as_torchrun(hosts, worker, timeout, folder)
        else:
            result, others = hosts.run(hosts.ranks(Path(sys.prefix), 1, worker), timeout), ""
        if result.returncode != 0:
            said = "\n".join(filter(None, (result.stdout.strip(), result.stderr.strip(), others)))
            ended = "did not end in time" if result.returncode is None else f"ended with {result.returncode}"
            raise RunFailed(f"{ended}\n{said}")
        ranks = [json.loads(Path(folder, f"rank{i}.json").read_text()) for i in range(hosts.count)]
    return {"contestant": contestant.name, "seed": seed, "rate": hosts.rate, "hosts": hosts.count} | _joined(ranks)


def _as_torchrun(hosts: Any, worker: list[str], timeout: float, folder: str) -> tuple[Any, str]:
    """What torchrun would do, with one rank a host: the result of rank 0, and what the others said."""
    lines = []
    for i in range(hosts.count):
        world = [f"RANK={i}", f"WORLD_SIZE={hosts.count}", f"MASTER_ADDR={hosts.names[0]}", f"MASTER_PORT={PORT}"]
        lines.append(hosts.on(i, ["env", *world, "GLOO_SOCKET_IFNAME=eth0", *worker]))
    others: list[subprocess.Popen[bytes]] = []
    with open(Path(folder, "said"), "a+") as said:
        try:
            others += [subprocess.Popen(line, stdin=subprocess.DEVNULL, stderr=said) for line in lines[1:]]
            result = hosts.run(lines[0], timeout)  # ends the others if they have not ended
        finally:
            for other in others:
                other.kill()
                other.wait()
        said.seek(0)
        return result, said.read().strip()


def _joined(ranks: list[dict[str, Any]]) -> dict[str, Any]:
    """Time is the slowest rank's between evaluations, bytes are the mean over ranks."""
    seconds = [max(parts) for parts in zip(*(rank["seconds"] for rank in ranks), strict=True)]
    nbytes = [sum(parts) / len(ranks) for parts in zip(*(rank["bytes"] for rank in ranks), strict=True)]
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "parameters": ranks[0]["parameters"],
        "ranks_agree": len({rank["weights"] for rank in ranks}) == 1,
        "compute_seconds": round(max(rank["compute"] for rank in ranks), 6),
        "seconds": [round(value, 6) for value in seconds],
        "bytes": [round(value) for value in nbytes],
        "accuracies": ranks[0]["accuracies"],
    }
