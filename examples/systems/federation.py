"""The same training as a federation: rank 0 is the server, and the others host the clients, who share the samples."""

from __future__ import annotations

import time

import torch
from torch.nn import functional
from tqdm import tqdm

from pycoll import federated

from .record import Record

CLIENTS = 4  # of a host
OUTER = federated.FedAvgM(lr=1.0, momentum=0.5)
LR = 0.2  # clients take few steps a round, so they are longer


class PacedClients(federated.TorchClients):
    """TorchClients whose steps take as long as `pace` says; `trained` counts their samples."""

    pace = None
    trained = 0

    def train(self, client, parameters, round):
        self.trained += self.samples(client)
        self.pace.steps = -(-self.samples(client) // self.batch)
        with self.pace:
            return super().train(client, parameters, round)


def train(comm, task, data, codec, label):
    """As many rounds as take about the samples that the other systems take; a Record."""
    x, y = data[:2]
    parts = federated.partition.iid(len(x), max(1, comm.size - 1) * CLIENTS, task.seed)
    clients = PacedClients(
        task.build(),
        functional.cross_entropy,
        [(x[part], y[part]) for part in parts],
        lr=LR,
        batch=task.batch,
        momentum=task.momentum,
        seed=task.seed,
    )
    clients.pace = task.pace(comm.rank)
    federation = federated.Federation(comm, clients, federated.Method(optimizer=OUTER, codec=codec))
    rounds = max(1, round(task.steps * task.batch * comm.size / len(x)))
    record = Record()
    with tqdm(total=rounds, desc=label, ncols=88, unit=" rounds", disable=comm.rank != 0) as bar:
        comm.barrier()
        begin = time.perf_counter()

        def keep(report):
            parameters = torch.from_numpy(federation.parameters.copy())
            record.snapshots.append((time.perf_counter() - begin, parameters))
            record.sent += report.sent + report.received  # by all ranks, as the server sees it
            bar.update()

        federation.run(rounds, keep)
    record.seconds, record.busy, record.samples = time.perf_counter() - begin, clients.pace.busy, clients.trained
    if comm.rank == 0:
        record.snapshots.append((record.seconds, torch.from_numpy(federation.parameters.copy())))
    return record
