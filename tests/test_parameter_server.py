"""pycoll.ParameterServer: its gate and placement alone, and whole systems over ranks that are threads."""

from __future__ import annotations

import copy
import os
import random
import re
import runpy
import threading
import time
from pathlib import Path

import pytest
import torch
from launch import available, run_ranks
from torch.nn.functional import cross_entropy

import pycoll
from pycoll import loopback
from pycoll.server import Gate, bounded
from pycoll.server.desk import Desk
from pycoll.server.gate import mode_of
from pycoll.server.pieces import Request
from pycoll.server.ring import HashRing

QUICK = bool(os.environ.get("PYCOLL_TEST_QUICK"))
SCHEDULES = 1_000 if QUICK else 10_000
WORKER = Path(__file__).parent / "workers" / "parameter_server.py"

torch.set_num_threads(1)


# ---- The gate


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


# ---- Training


building = threading.Lock()  # torch's generator is one for all threads


def network():
    with building:
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(20, 64), torch.nn.Tanh(), torch.nn.Linear(64, 3))


def batches(number, count, seed=1):
    draw = torch.Generator().manual_seed(seed + number)
    for _ in range(count):
        x = torch.randn(8, 20, generator=draw)
        yield x, x[:, :3].argmax(1)


def numbers_of(model):
    return torch.cat([p.detach().reshape(-1).float() for p in model.parameters()])


def train(optimizer, model, number, steps, scheduler=None):
    for x, y in batches(number, steps):
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()


def ps_training(comm, make, steps=30, schedule=False, **options):
    """On each rank: (parameters, statistics), trained over a parameter server."""
    model = network()
    wrapped = make(model.parameters())
    workers = options.get("workers") or list(range(comm.size))
    with pycoll.PSOptimizer(wrapped, model.named_parameters(), comm, **options) as optimizer:
        if optimizer.is_worker:
            scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 10, 0.5) if schedule else None
            train(optimizer, model, workers.index(comm.rank), steps, scheduler)
            optimizer.synchronize()
        else:
            optimizer.serve()
    return numbers_of(model), optimizer.stats()


def all_reduce_training(comm, make, steps=30, schedule=False):
    model = network()
    optimizer = pycoll.DistributedOptimizer(make(model.parameters()), model.named_parameters(), comm)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 10, 0.5) if schedule else None
    train(optimizer, model, comm.rank, steps, scheduler)
    optimizer.close()
    return numbers_of(model)


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=1e-3)


def plain_sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1)


def adam(parameters):
    return torch.optim.AdamW(parameters, lr=0.01)


@pytest.mark.parametrize("make", [sgd, adam])
def test_sync_is_all_reduce_training(make):
    one = loopback.run(2, lambda comm: all_reduce_training(comm, make, schedule=True), timeout=20)[0]
    dedicated = {"servers": [0], "workers": [1, 2]}
    for ranks, options in ((3, dedicated), (2, {"piece_bytes": 600}), (4, {"servers": [0, 3], "workers": [1, 2]})):
        results = loopback.run(
            ranks,
            lambda comm, options=options: ps_training(comm, make, schedule=True, **options),
            timeout=20,
        )
        trained = [results[rank][0] for rank in options.get("workers", range(ranks))]
        # Two addends have one sum whatever their order; halving is exact.
        assert all(torch.allclose(numbers, one, rtol=0, atol=1e-6) for numbers in trained), ranks
        served = [stats["server"] for _, stats in results if "server" in stats]
        assert all(set(server["staleness"]) == {0} and set(server["lag"]) == {0} for server in served)
        assert sum(server["shard_bytes"] for server in served) == 4 * one.numel()


def test_delay_hides_communication_behind_the_next_step():
    results = loopback.run(2, lambda comm: ps_training(comm, sgd, delay=1), timeout=20)
    assert torch.equal(results[0][0], results[1][0])
    assert set(results[0][1]["server"]["lag"]) == {0, 1}  # all but the first gradient lack one update

    def overlap(comm):
        model = network()
        with pycoll.ParameterServer(sgd(model.parameters()), model.named_parameters(), comm) as ps:
            if comm.rank == 1:
                time.sleep(0.3)
            begin = time.monotonic()
            pending = ps.push_pull({name: torch.ones_like(p) for name, p in model.named_parameters()}, wait=False)
            returned, computed = time.monotonic() - begin, not pending.done()
            with pytest.raises(pycoll.Timeout, match="it goes on") if comm.rank == 0 else pytest.MonkeyPatch.context():
                pending.wait(0.01 if comm.rank == 0 else None)
            pending.wait()
            return returned, computed, numbers_of(model)

    waiting, _ = loopback.run(2, overlap, timeout=20)
    assert waiting[0] < 0.2 and waiting[1]


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


@pytest.mark.parametrize("mode", ["async", bounded(2)])
def test_bound_in_real_runs(mode):
    """Workers of random speed over messages: what the servers measured keeps the bound, and training works."""

    def run(comm):
        model = network()
        draw = random.Random(comm.rank)
        make = plain_sgd(model.parameters())
        with pycoll.PSOptimizer(make, model.named_parameters(), comm, mode=mode) as optimizer:
            for i, (x, y) in enumerate(batches(comm.rank, 40 + 5 * comm.rank)):  # uneven: leaving early is no failure
                optimizer.zero_grad()
                cross_entropy(model(x), y).backward()
                optimizer.step()
                if draw.random() < 0.2 and i < 30:
                    time.sleep(0.01 * comm.rank)
        return cross_entropy(model(x), y).item(), optimizer.stats()["server"]

    for loss, server in loopback.run(3, run, timeout=30):
        assert loss < 0.9  # 1.1 before
        assert sum(server["lag"].values()) == 40 + 45 + 50
        assert sum(server["staleness"].values()) == 40 + 45 + 50
        assert server["queue_length"] == 0
        if mode != "async":
            assert max(server["staleness"]) <= mode.staleness
            assert max(server["lag"]) <= 2 * (2 * mode.staleness + 1)  # of each other worker


@pytest.mark.parametrize("codec", [pycoll.Int8(), pycoll.TopK(0.1), pycoll.Sign(), pycoll.Cast("bf16")])
def test_codecs(codec):
    """Fewer bytes each way, nearly the same numbers; and what a worker has is what its server thinks that it has."""
    options = {"servers": [0], "workers": [1, 2]}
    (_, dense), (plain, _), _ = loopback.run(3, lambda c: ps_training(c, plain_sgd, 60, **options), timeout=20)
    options |= {"codec": codec, "pull_codec": codec}
    (_, server), (first, _), (second, _) = loopback.run(
        3, lambda c: ps_training(c, plain_sgd, 60, **options), timeout=20
    )
    for direction in ("received_bytes", "sent_bytes"):
        assert server["server"][direction] < 0.85 * dense["server"][direction]
    assert torch.equal(first, second)  # both pulled as often, and differences are encoded alike
    assert (first - plain).norm() < 0.5 * plain.norm()


def test_differences_arrive_in_the_end():
    """Without further updates, pulls bring what encoding had left out."""

    def run(comm):
        model = network()
        options = {"servers": [0], "workers": [1], "pull_codec": pycoll.TopK(0.3)}
        with pycoll.ParameterServer(sgd(model.parameters()), model.named_parameters(), comm, **options) as ps:
            if comm.rank == 0:
                return ps.serve()
            before = numbers_of(model)
            ps.push({name: torch.ones_like(p) for name, p in model.named_parameters()})
            gaps = []
            for _ in range(8):
                ps.pull()
                gaps.append((numbers_of(model) - before + 0.1 + 1e-4 * before).abs().max().item())
            return gaps

    gaps = loopback.run(2, run, timeout=20)[1]
    assert gaps[0] > 0.05 and gaps[-1] < 1e-6, gaps


def test_rows_of_a_table():
    """An embedding's sparse gradient travels as rows, and rows are pulled alone: as in one process."""
    steps, words = 20, 1000

    def table():
        with building:
            torch.manual_seed(0)
            return torch.nn.Embedding(words, 16, sparse=True)

    def ids(rank, step):
        return torch.randint(0, 50, (12,), generator=torch.Generator().manual_seed(100 * step + rank)) * 20

    def run(comm, codec):
        model = table()
        optimizer = torch.optim.SparseAdam(model.parameters(), lr=0.05)
        with pycoll.ParameterServer(
            optimizer, model.named_parameters(), comm, piece_bytes=4000, codec=codec, pull_codec=codec
        ) as ps:
            for step in range(steps):
                mine = ids(comm.rank, step)
                ps.pull(["weight"], {"weight": mine})
                model.zero_grad()
                model(mine).square().sum().backward()
                ps.push({"weight": model.weight.grad})
            sent = ps.stats()["sent_bytes"]
            ps.pull()
            pieces = {piece.server for piece in ps._pieces}
        return model.weight.detach(), sent, pieces

    alone = table()
    optimizer = torch.optim.SparseAdam(alone.parameters(), lr=0.05)
    for step in range(steps):
        optimizer.zero_grad()
        (sum(alone(ids(rank, step)).square().sum() for rank in range(3)) / 3).backward()
        optimizer.step()
    results = loopback.run(3, lambda comm: run(comm, None), timeout=20)
    for weight, sent, pieces in results:
        assert torch.allclose(weight, alone.weight, rtol=0, atol=1e-5)
        assert sent < steps * words * 16 * 4 / 4  # far fewer than tables
        assert pieces == {0, 1, 2}
    for weight, _, _ in loopback.run(3, lambda comm: run(comm, pycoll.Int8()), timeout=20):
        assert torch.allclose(weight, alone.weight, rtol=0, atol=0.2)


def test_half_precision_parameters_are_kept_in_float32():
    def run(comm):
        model = torch.nn.Linear(4, 4, bias=False).to(torch.bfloat16)
        torch.nn.init.ones_(model.weight)
        with pycoll.ParameterServer(torch.optim.SGD(model.parameters(), lr=1e-3), model.named_parameters(), comm) as ps:
            for _ in range(10):  # each too small to change a bfloat16 1
                ps.push_pull({"weight": torch.ones_like(model.weight)})
        return model.weight.detach()

    assert all((weight == torch.tensor(0.99).bfloat16()).all() for weight in loopback.run(2, run, timeout=20))


def test_state_goes_in_and_out():
    """A checkpoint taken from the servers goes on in one process, and one of a process over servers."""

    def run(comm, state):
        model = network()
        wrapped = adam(model.parameters())
        if state is not None:
            model.load_state_dict(state[0])
            wrapped.load_state_dict(copy.deepcopy(state[1]))
        with pycoll.PSOptimizer(wrapped, model.named_parameters(), comm, piece_bytes=700) as optimizer:
            train(optimizer, model, 7, 10)
            saved = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
            with pytest.raises(pycoll.InvalidArgument, match="before wrapping"):
                optimizer.load_state_dict(saved[1])
        return saved

    first = loopback.run(2, lambda comm: run(comm, None), timeout=20)[0]
    second = loopback.run(3, lambda comm: run(comm, first), timeout=20)[0]
    model = network()
    optimizer = adam(model.parameters())
    for _ in range(2):
        train(optimizer, model, 7, 10)
    for name, value in model.state_dict().items():
        assert torch.allclose(second[0][name], value, rtol=0, atol=1e-5), name
    model.load_state_dict(second[0])
    optimizer.load_state_dict(second[1])
    assert optimizer.state[model[0].weight]["exp_avg"].shape == (64, 20)
    assert optimizer.state[model[0].weight]["step"] == 20


# ---- What goes wrong


def outcomes(ranks, body, timeout=20.0):
    """What each rank raised, as text; None for one that did not."""
    raised = [None] * ranks

    def run(comm):
        try:
            body(comm)
        except Exception as error:
            raised[comm.rank] = f"{type(error).__name__}: {error}"

    begin = time.monotonic()
    loopback.run(ranks, run, timeout=timeout)
    assert time.monotonic() - begin < timeout + 6
    left = [
        thread.name for thread in threading.enumerate() if thread.name.startswith(("pycoll-server", "pycoll-worker"))
    ]
    assert not left
    return raised


def serve_or(comm, act, **options):
    model = network()
    with pycoll.ParameterServer(sgd(model.parameters()), model.named_parameters(), comm, **options) as ps:
        if ps.is_worker:
            act(ps, {name: torch.ones_like(p) for name, p in model.named_parameters()})
        else:
            ps.serve()


DEDICATED = {"servers": [0], "workers": [1, 2]}


@pytest.mark.parametrize("options", [DEDICATED, {}], ids=["dedicated", "shared"])
def test_a_worker_that_fails_is_named_everywhere(options):
    def act(ps, ones):
        for step in range(10):
            if step == 3 and ps._comm.rank == 2:
                raise ValueError("what rank 2 said")
            ps.push_pull(ones)

    raised = outcomes(3, lambda comm: serve_or(comm, act, **options))
    assert raised[2] == "ValueError: what rank 2 said"
    for text in raised[:2]:
        assert text.startswith("PeerFailed") and "rank 2" in text and "what rank 2 said" in text, raised


@pytest.mark.parametrize("options", [DEDICATED, {}], ids=["dedicated", "shared"])
def test_fewer_pushes_of_one_worker_are_a_mismatch(options):
    def act(ps, ones):
        for _ in range(3 if ps._comm.rank == 2 else 5):
            ps.push_pull(ones)

    raised = outcomes(3, lambda comm: serve_or(comm, act, **options))
    assert all(text and "rank 2 left after 3 pushes" in text for text in raised[:2]), raised


@pytest.mark.parametrize("options", [DEDICATED, {}], ids=["dedicated", "shared"])
def test_a_worker_that_does_not_come_is_a_timeout(options):
    def act(ps, ones):
        ps.push_pull(ones)
        if ps._comm.rank == 2:
            time.sleep(1.2)
        ps.push_pull(ones)

    raised = outcomes(3, lambda comm: serve_or(comm, act, **options), timeout=0.5)
    assert all(text and "waited 0.5 s for rank 2, after 1" in text for text in raised[:2]), raised
    assert raised[2] is not None and "Timeout" in raised[2]


def test_an_optimizer_that_raises_is_told_everywhere():
    def body(comm):
        model = torch.nn.Embedding(10, 4, sparse=True)
        with pycoll.ParameterServer(torch.optim.Adam(model.parameters()), model.named_parameters(), comm) as ps:
            model(torch.tensor([1])).sum().backward()
            ps.push_pull({"weight": model.weight.grad})

    assert all("does not support sparse gradients" in str(text) for text in outcomes(2, body))


def test_ranks_that_disagree():
    def body(comm):
        model = network()
        options = {"mode": "sync" if comm.rank else "async"}
        pycoll.ParameterServer(sgd(model.parameters()), model.named_parameters(), comm, **options)

    raised = outcomes(2, body)
    assert raised[0] == raised[1] == "MismatchError: ParameterServer: mode is sync on rank 1, but async on rank 0"


def test_bad_arguments():
    def body(comm):
        model = network()
        make = lambda **options: pycoll.PSOptimizer(sgd(model.parameters()), model.named_parameters(), comm, **options)  # noqa: E731
        for options, words in (
            ({"mode": "fast"}, "mode is 'fast'"),
            ({"servers": [0], "workers": [0]}, "rank 1 is neither"),
            ({"servers": [2]}, r"servers is \[2\]"),
            ({"servers": []}, r"servers is \[\]"),
            ({"piece_bytes": 0}, "piece_bytes is 0"),
            ({"codec": pycoll.SharedScale()}, "SharedScale"),
            ({"pull_codec": "int8"}, "codec"),
            ({"delay": 2}, "delay is 2"),
        ):
            with pytest.raises(pycoll.InvalidArgument, match=words):
                make(**options)
        with pytest.raises(pycoll.InvalidArgument, match="lacks"):
            pycoll.ParameterServer(sgd(model.parameters()), list(model.named_parameters())[:2], comm)
        with make(servers=[0], workers=[1]) as optimizer:
            ps = optimizer.server
            if comm.rank == 0:
                with pytest.raises(pycoll.InvalidArgument, match="rank 0 is a server only"):
                    ps.pull()
                optimizer.serve()
                return
            for call, words in (
                (lambda: ps.push({"nothing": torch.ones(1)}), "no parameter 'nothing'"),
                (lambda: ps.push({"0.weight": torch.ones(3)}), "wanted \\[64, 20\\]"),
                (lambda: ps.pull(["nothing"]), "no parameter 'nothing'"),
                (lambda: ps.pull(rows={"0.weight": torch.tensor([64])}), "wanted 0 to 63"),
                (lambda: ps.serve(), "rank 1 is a worker"),
                (lambda: optimizer.add_param_group({}), "before wrapping"),
            ):
                with pytest.raises(pycoll.InvalidArgument, match=words):
                    call()
            ps.pull()
        with pytest.raises(pycoll.Error, match="closed"):
            ps.pull()

    loopback.run(2, body, timeout=20)


# ---- The example


def test_example(monkeypatch, capsys):
    """With one worker of four slowed down; what it measures at length stands in docs/parameter-server.md."""
    examples = Path(__file__).parent.parent / "examples"
    monkeypatch.syspath_prepend(str(examples))
    monkeypatch.setattr("sys.argv", ["parameter_server_digits.py", "--seconds", "0.8"])
    runpy.run_path(str(examples / "parameter_server_digits.py"), run_name="__main__")
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    of_sync = {name: float(re.search(r"([0-9.]+)x", rows[name]).group(1)) for name in ("sync", "bounded(8)", "async")}
    assert of_sync["async"] > 1.5 * of_sync["sync"]
    assert "at most 0" in rows["sync"]


# ---- Processes


@pytest.mark.mpi
@pytest.mark.skipif(not available("mpi"), reason="no mpirun here")
def test_over_mpi():
    """Training over processes, then one is killed; see workers/parameter_server.py."""
    ended = run_ranks(WORKER, 3, "mpi", timeout=60, survive=True)
    assert not ended.timed_out, str(ended)
    assert "rank 1 trained as all-reduce does" in ended.stdout, str(ended)
    for rank in (0, 1):
        assert f"rank {rank} raised PeerFailed about rank 2" in ended.stdout, str(ended)
