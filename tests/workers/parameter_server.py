"""A parameter server over processes: training as all-reduce does it, and a worker that is killed."""

from __future__ import annotations

import os
import signal
import time

import torch
from torch.nn.functional import cross_entropy

import pycoll


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(300, 400), torch.nn.Tanh(), torch.nn.Linear(400, 3))


def train(optimizer, model, number):
    draw = torch.Generator().manual_seed(number)
    for _ in range(10):
        x = torch.randn(8, 300, generator=draw)
        optimizer.zero_grad()
        cross_entropy(model(x), x[:, :3].argmax(1)).backward()
        optimizer.step()
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def main():
    torch.set_num_threads(1)
    comm = pycoll.init(timeout=30)
    roles = {"servers": [0], "workers": [1, 2]}
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    with pycoll.PSOptimizer(optimizer, model.named_parameters(), comm, **roles) as optimizer:
        if optimizer.is_worker:
            trained = train(optimizer, model, comm.rank)
        else:
            optimizer.serve()
    pair = comm.split(0 if comm.rank else None)
    if pair is not None:
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        optimizer = pycoll.DistributedOptimizer(optimizer, model.named_parameters(), pair)
        reduced = train(optimizer, model, comm.rank)
        if torch.allclose(trained, reduced, rtol=0, atol=1e-6):
            print(f"rank {comm.rank} trained as all-reduce does", flush=True)
        optimizer.close()
    try:
        model = network()
        with pycoll.ParameterServer(
            torch.optim.SGD(model.parameters(), lr=0.1), model.named_parameters(), comm, mode="async", **roles
        ) as ps:
            if not ps.is_worker:
                ps.serve()
            for step in range(300):
                if comm.rank == 2 and step == 5:
                    os.kill(os.getpid(), signal.SIGKILL)
                ps.push_pull({name: torch.ones_like(p) for name, p in model.named_parameters()})
                time.sleep(0.01)
    except pycoll.PeerFailed as error:
        print(f"rank {comm.rank} raised PeerFailed about rank {error.rank}", flush=True)


if __name__ == "__main__":
    main()
