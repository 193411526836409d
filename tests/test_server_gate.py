"""The parameter server's gate, ten thousand random schedules of it, and its placement."""

from __future__ import annotations

import os
import random
import time

import pytest
import torch

import pycoll
from pycoll import loopback
from pycoll.server import Gate, bounded
from pycoll.server.desk import Desk
from pycoll.server.gate import mode_of
from pycoll.server.pieces import Request
from pycoll.server.ring import HashRing

QUICK = bool(os.environ.get("PYCOLL_TEST_QUICK"))
SCHEDULES = 1_000 if QUICK else 10_000


class Log:
    """A shard that notes what each update held, and what each read saw."""

    def __init__(self):
        self.version, self.collected, self.seen, self.reads = 0, [], {}, []

    def set_options(self, options):
        raise AssertionError("nobody sets options")

    def collect(self, worker, entries, tables):
        self.collected.append(worker)

    def update(self):
        self.version += 1
        for worker in self.collected:
            self.seen[worker] = self.seen.get(worker, 0) + 1
        self.collected.clear()

    def read(self, worker, wanted):
        self.reads.append((worker, dict(self.seen)))
        return []

    def state(self):
        return {}


def schedule(seed):
    """One random schedule: workers of random speeds push, pull, do both, and leave, through a Desk.

    The oracle counts by itself: when a worker reads at its own push number c, every worker that has not left must have
    had at least c - staleness pushes applied.
    """
    draw = random.Random(seed)
    workers = list(range(draw.randint(1, 6)))
    staleness = draw.choice([0, 0, 1, 2, 3, 7])
    log = Log()
    gate = Gate(workers, bounded(staleness))
    desk = Desk(0, gate, log)
    pushes = dict.fromkeys(workers, 0)
    answered = dict.fromkeys(workers, True)
    speed = {w: draw.choice([1, 1, 4, 20]) for w in workers}
    left: set[int] = set()
    checked = waited = 0
    for _ in range(draw.randint(5, 30)):
        ready = [w for w in workers if answered[w] and w not in left]
        if not ready:
            break  # all have left, or the last assertion below has failed
        worker = draw.choices(ready, [speed[w] for w in ready])[0]
        kind = draw.choices(["both", "push", "pull", "leave"], [10, 3, 3, 0.4])[0]
        answered[worker] = False

        def answer(reply, worker=worker):
            answered[worker] = True

        if kind == "leave":
            left.add(worker)
            desk.take(worker, Request(leave=True), answer)
            assert answered[worker], "nobody who leaves waits"
        else:
            pushes[worker] += kind != "pull"
            push, pull = ([] if kind != "pull" else None), ([] if kind != "push" else None)
            desk.take(worker, Request(push=push, pull=pull), answer)
        waited += not answered[worker]
        for reader, seen in log.reads:
            others = [w for w in workers if w not in left]
            assert all(seen.get(w, 0) >= seen.get(reader, 0) - staleness for w in others), (seed, reader, seen)
            checked += 1
        log.reads.clear()
        active = [w for w in workers if w not in left]
        applied = [log.seen.get(w, 0) for w in active]
        if active:
            assert max(applied) - min(applied) <= staleness + 1, seed
            assert any(answered[w] for w in active), f"seed {seed}: all wait"
    assert max(desk.staleness, default=0) <= staleness
    return checked, waited, max(desk.staleness, default=0) == staleness


def test_staleness_is_never_exceeded():
    results = [schedule(seed) for seed in range(SCHEDULES)]
    assert sum(checked for checked, _, _ in results) > 3 * SCHEDULES
    assert sum(waited for _, waited, _ in results) > SCHEDULES / 4  # the gate had something to do
    assert sum(reached for _, _, reached in results) > SCHEDULES / 4  # and is not closed too early


def test_a_gate_without_its_bound_is_found_out(monkeypatch):
    monkeypatch.setattr(Gate, "open", lambda self, worker: True)
    with pytest.raises(AssertionError):
        for seed in range(50):
            schedule(seed)


def test_modes():
    assert mode_of("sync").averages and not mode_of("async").averages and str(bounded(3)) == "bounded(staleness=3)"
    for wrong in (-1, True, 1.5):
        with pytest.raises(pycoll.InvalidArgument, match="staleness"):
            bounded(wrong)
    for wrong in ("fast", ["sync"]):
        with pytest.raises(pycoll.InvalidArgument, match="mode is"):
            mode_of(wrong)


# ---- Placement


@pytest.mark.parametrize("servers", [1, 3, 8])
def test_placement_is_balanced_and_consistent(servers):
    draw = random.Random(servers)
    bytes_of = {f"layer{i}": draw.choice([400, 4_000, 40_000]) for i in range(500)}
    placed = HashRing(range(servers)).place(bytes_of)
    load = [sum(size for key, size in bytes_of.items() if placed[key] == s) for s in range(servers)]
    assert sum(load) == sum(bytes_of.values())
    assert max(load) <= 1.1 * sum(load) / servers + max(bytes_of.values())
    more = HashRing(range(servers + 1)).place(bytes_of)
    moved = sum(placed[key] != more[key] for key in bytes_of) / len(bytes_of)
    assert moved < 3 / (servers + 1)  # 1 / (servers + 1) have to; a plain modulus moves servers / (servers + 1)


# ---- Over messages


def test_random_schedules_over_messages():
    """Every push adds 1 to its worker's element, so that a pull shows what it contains: nobody else is asked."""

    def run(comm):
        reads = []
        for seed in range(4 if QUICK else 12):
            draw = random.Random(100 * seed + comm.rank)
            staleness, pushes = seed % 4, 10
            servers = [[0], [0, 1, 2, 3], [3, 2]][seed % 3]
            workers = list(range(4)) if seed % 2 else [rank for rank in range(4) if rank or servers != [0]]
            counts = torch.nn.Parameter(torch.zeros(4, 300))
            optimizer = torch.optim.SGD([counts], lr=1)
            mode = bounded(staleness)
            with pycoll.ParameterServer(
                optimizer, [("counts", counts)], comm, servers=servers, workers=workers, mode=mode, piece_bytes=1200
            ) as ps:
                if not ps.is_worker:
                    ps.serve()
                    continue
                mine = torch.zeros_like(counts)
                mine[comm.rank] = -1
                for push in range(1, pushes + 1):
                    if draw.random() < 0.1:
                        time.sleep(0.002 * draw.randint(1, 3))
                    pending = []
                    if draw.random() < 0.5:
                        ps.push_pull({"counts": mine})
                    else:
                        pending = [ps.push({"counts": mine}, wait=False), ps.pull(wait=False)]
                    for each in pending:
                        each.wait()
                    seen = counts.detach()
                    assert (seen == seen[:, :1]).all() and seen[comm.rank, 0] == push
                    behind = [push - int(seen[other, 0]) for other in workers]
                    assert max(behind) <= staleness, (seed, push, behind)
                    reads.append((staleness, max(behind)))
        return reads

    reads = [read for found in loopback.run(4, run, timeout=30) for read in found]
    assert len(reads) > (120 if QUICK else 400)
    assert all((staleness, staleness) in reads for staleness in range(4))  # and is made use of
