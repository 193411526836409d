"""What secure aggregation adds to a round of federated learning.

    pycoll run -n 3 bench/secure_aggregation.py --json out/secure.json

Rank 0 is the server, the others host the clients; one rank is both. Rounds of each kind are run in turn:
    plain        clients train, updates travel as float32
    secure       the same, with masks; integers of 32 bits travel
    dropouts     secure, and 30 % of the clients drop out after they shared their keys: masks are made again for them
    bare, bare secure   without training: what is left are messages, sums and masks

Columns: seconds (median of the rounds); added, to the round of its kind without masks, plain or bare; the same as a
part of that round; and bytes that the server sends and receives. Every secure sum is compared with the plain one; the
largest difference is printed.

--json FILE writes {"schema": "pycoll-secure-aggregation/2", "environment": {...}, "settings": {...},
"results": [the columns], "max_error"}.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # ranks share the cores

import numpy as np
import torch
from table import environment_of
from torch import nn

import pycoll
from pycoll import federated


@dataclass
class Still:
    """Clients that do not train: each hands over an update of its own."""

    updates: np.ndarray

    def __len__(self) -> int:
        return len(self.updates)

    def parameters(self) -> np.ndarray:
        return np.zeros(self.updates.shape[1], np.float32)

    def samples(self, client: int) -> int:
        return 100

    def train(self, client: int, parameters: np.ndarray, round: int) -> np.ndarray:
        return parameters + self.updates[client]


def network(elements: int) -> nn.Module:
    """64 inputs, two hidden layers, ten outputs: about `elements` parameters."""
    torch.manual_seed(0)
    width = round((-76 + (76**2 + 4 * elements) ** 0.5) / 2)
    return nn.Sequential(nn.Linear(64, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, 10))


def trained(settings: argparse.Namespace) -> federated.TorchClients:
    torch.manual_seed(1)
    x, y = torch.randn(settings.samples, 64), torch.randint(10, (settings.samples,))
    data = [(x, y)] * settings.clients
    return federated.TorchClients(network(settings.elements), nn.functional.cross_entropy, data, lr=0.01)


def measure(comm: pycoll.Communicator, settings: argparse.Namespace) -> tuple[list[dict[str, Any]], float]:
    secure = federated.Secure(range=1024.0)
    lost = set(range(0, settings.clients, 3)[: int(0.3 * settings.clients)]) if settings.clients > 3 else set()
    updates = np.random.default_rng(0).normal(0, 0.01, (settings.clients, settings.elements)).astype(np.float32)
    train, still = trained(settings), Still(updates)
    methods = {
        "plain": (train, federated.Method()),
        "secure": (train, federated.Method(secure=secure)),
        "dropouts": (train, federated.Method(secure=secure, dropout=lambda round, client: client in lost)),
        "bare": (still, federated.Method()),
        "bare secure": (still, federated.Method(secure=secure)),
    }
    federations = {name: federated.Federation(comm, *both) for name, both in methods.items()}
    reports: dict[str, list[federated.Report]] = {name: [] for name in methods}
    for _ in range(1 + settings.rounds):  # the first warms up
        for name, federation in federations.items():
            reports[name] += federation.run(1)
            comm.barrier()
    if comm.rank:
        return [], 0.0
    rows = []
    for name, of in reports.items():
        assert all(report.void is None for report in of), name
        base = "bare" if name.startswith("bare") else "plain"
        seconds, without = (float(np.median([r.seconds for r in reports[n]][1:])) for n in (name, base))
        rows.append(
            {
                "kind": name,
                "clients": len(of[-1].reported),
                "seconds": seconds,
                "added": seconds - without,
                "added_to_base": (seconds - without) / without,
                "sent": of[-1].sent,
                "received": of[-1].received,
            }
        )
    error = np.abs(federations["bare"].parameters - federations["bare secure"].parameters).max()
    return rows, float(error)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What secure aggregation adds to a round.")
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--elements", type=int, default=1_000_000, help="parameters, nearly (1000000)")
    parser.add_argument("--samples", type=int, default=100, help="of a client, seen once a round in batches of 10")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args()


def main() -> None:
    settings = parse()
    torch.set_num_threads(1)
    with pycoll.init() as comm:
        rows, error = measure(comm, settings)
        environment = environment_of(SimpleNamespace(comm=comm, peer=None))
    if not rows:
        return
    print(f"{environment['ranks']} ranks; {settings.clients} clients, {settings.elements:,} parameters")
    print(f"{'':14}{'clients':>8}{'seconds':>10}{'added':>9}{'/ base':>9}{'MB sent':>9}{'received':>9}")
    for row in rows:
        print(
            f"{row['kind']:14}{row['clients']:8}{row['seconds']:10.3f}{row['added']:9.3f}{row['added_to_base']:9.2f}"
            f"{row['sent'] / 1e6:9.1f}{row['received'] / 1e6:9.1f}"
        )
    print(f"largest difference of the secure parameters from the plain ones: {error:.1e}")
    if settings.json:
        settings.json.parent.mkdir(parents=True, exist_ok=True)
        result = {
            "schema": "pycoll-secure-aggregation/2",
            "environment": environment,
            "settings": {name: value for name, value in vars(settings).items() if name != "json"},
            "results": rows,
            "max_error": error,
        }
        settings.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
