"""The parameter server's gate, ten thousand random schedules of it, and its placement."""

from __future__ import annotations

import os
import random
import threading
import time

import numpy as np
import pytest

import pycoll
from pycoll import loopback
from pycoll.server import Gate, bounded
from pycoll.server.client import Client
from pycoll.server.desk import Desk
from pycoll.server.gate import mode_of
from pycoll.server.pieces import Entry, Request
from pycoll.server.ring import HashRing
from pycoll.server.server import Server

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


# ---- Over messages, on ranks that are threads


class Counts(Log):
    """A shard of which a read says how many pushes of each worker it has seen."""

    def read(self, worker, wanted):
        return [Entry(other, None, np.array([count], np.float32)) for other, count in self.seen.items()]


def random_schedules(seeds, staleness, servers, workers):
    """Schedules of real clients and servers on loopback; how far behind the slowest worker each read was.

    A server's answer says what it has seen, so nobody else is asked. In a schedule each worker pushes as often as the
    others, and pulls, in an order and with pauses of its own.
    """

    def run(comm):
        comm = comm.dup()
        desk = Desk(comm.rank, Gate(workers, bounded(staleness)), Counts())
        server = Server(comm, desk, workers) if comm.rank in servers else None
        thread = threading.Thread(target=server.run) if server else None
        if thread:
            thread.start()
        behind = work(Client(comm, servers, server), seeds, comm.rank, workers) if comm.rank in workers else []
        if thread:
            thread.join(30)
            assert not thread.is_alive() and (server.error is None)
        assert max(behind, default=0) <= staleness
        return behind

    ranks = max(*servers, *workers) + 1
    return [one for found in loopback.run(ranks, run, timeout=20) for one in found]


def work(client, seeds, rank, workers):
    clock, behind = 0, []
    for seed in seeds:
        draw = random.Random(seed * 31 + rank)
        acts = ["push"] * random.Random(seed).randint(1, 3) + ["pull"]
        draw.shuffle(acts)
        slow = draw.random() < 0.2
        for act in acts:
            if slow:
                time.sleep(draw.choice([0, 1e-4]))
            clock += act == "push"
            push, pull = ([] if act == "push" else None), ([] if act == "pull" or draw.random() < 0.3 else None)
            replies = client.ask({server: Request(push=push, pull=pull) for server in client.servers})
            for reply in replies.values() if pull is not None else ():
                seen = {entry.piece: int(entry.wire[0]) for entry in reply.entries}
                assert seen.get(rank, 0) == clock, f"schedule {seed}: rank {rank} read {seen} after {clock} pushes"
                behind.append(clock - min(seen.get(worker, 0) for worker in workers))
    client.ask({server: Request(leave=True) for server in client.servers})
    client.close()
    return behind


CASES = [
    (staleness, servers, workers)
    for staleness in (0, 1, 2, 4)
    for servers, workers in (([0], [1, 2]), ([0], [0, 1, 2]), ([0, 1], [0, 1]))
]


def test_ten_thousand_schedules_on_loopback():
    largest = dict.fromkeys((0, 1, 2, 4), 0)
    for case, (staleness, servers, workers) in enumerate(CASES):
        behind = random_schedules(range(case, SCHEDULES, len(CASES)), staleness, servers, workers)
        assert len(behind) > 2 * SCHEDULES / len(CASES)
        largest[staleness] = max(largest[staleness], *behind)
    assert all(seen == staleness for staleness, seen in largest.items())  # the bound is made use of


def test_schedules_on_loopback_find_out_a_gate_without_its_bound(monkeypatch):
    monkeypatch.setattr(Gate, "open", lambda self, worker: True)
    with pytest.raises(AssertionError):
        random_schedules(range(300), *CASES[0])
