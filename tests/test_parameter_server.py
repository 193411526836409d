"""Training over pycoll.ParameterServer and pycoll.PSOptimizer; ranks are threads."""

from __future__ import annotations

import copy
import random
import re
import runpy
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from server_training import (
    adam,
    all_reduce_training,
    batches,
    building,
    network,
    numbers_of,
    plain_sgd,
    ps_training,
    sgd,
    train,
)
from torch.nn.functional import cross_entropy

import pycoll
from pycoll import loopback
from pycoll.server import bounded
from pycoll.server.pieces import Residuals, cut, flat


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
            return copy.deepcopy((model.state_dict(), optimizer.state_dict()))

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


@pytest.mark.parametrize("make", [partial(torch.optim.NAdam, lr=0.1), partial(torch.optim.Adagrad, lr=0.1)])
def test_scalars_and_snapshots(make):
    """A parameter without dimensions is trained as in one process, with the state of a checkpoint too; and what
    state_dict() gave is not what the servers go on with."""

    def model():
        return {"scale": torch.nn.Parameter(torch.tensor(1.0)), "bias": torch.nn.Parameter(torch.ones(3))}

    def steps(optimizer, parameters, which):
        for step in which:
            for i, parameter in enumerate(parameters.values()):
                parameter.grad = torch.full_like(parameter, 0.1 * (step + 1) + i)
            optimizer.step()

    def run(comm):
        alone, first, second = model(), model(), model()
        reference = make(alone.values())
        steps(reference, alone, range(5))
        with pycoll.PSOptimizer(make(first.values()), first.items(), comm) as optimizer:
            steps(optimizer, first, range(2))
            saved = optimizer.state_dict()
            before = copy.deepcopy((first, saved))
            steps(optimizer, first, range(2, 3))
            assert str(saved) == str(before[1])
        for into_wrapped in (True, False):
            for name, parameter in second.items():
                parameter.data.copy_(before[0][name].detach())
            wrapped = make(second.values())
            if into_wrapped:
                wrapped.load_state_dict({key: value for key, value in saved.items() if key != "pycoll"})
            with pycoll.PSOptimizer(wrapped, second.items(), comm) as optimizer:
                if not into_wrapped:
                    optimizer.load_state_dict(saved)
                steps(optimizer, second, range(2, 5))
                optimizer.server.pull(rows={"scale": [0]})
            assert all(torch.equal(alone[name], second[name]) for name in alone)

    loopback.run(2, run, timeout=20)


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        (torch.float32, {"codec": pycoll.TopK(0.1), "piece_bytes": 700}),
        (torch.bfloat16, {"codec": pycoll.Int8(rounding="stochastic"), "servers": [0], "workers": [1, 2]}),
    ],
)
def test_a_resumed_run_equals_an_uninterrupted_one(dtype, options):
    """To the bit: what error feedback has not sent is in the checkpoint, and the servers' own numbers are."""
    steps = 24

    def start(comm, others):
        model = network().to(dtype)
        return model, pycoll.PSOptimizer(adam(model.parameters()), model.named_parameters(), comm, **others)

    def some(optimizer, model, number, which):
        for i, (x, y) in enumerate(batches(number, steps)):
            if i in which:
                optimizer.zero_grad()
                cross_entropy(model(x.to(dtype)).float(), y).backward()
                optimizer.step()

    def run(comm):
        number, saved, ends = comm.rank, None, []
        model, optimizer = start(comm, options)
        with optimizer:
            if not optimizer.is_worker:
                optimizer.serve()
            else:
                some(optimizer, model, number, range(steps // 2))
                saved = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
                some(optimizer, model, number, range(steps // 2, steps))
                ends.append(numbers_of(model))
        for forgets in (False, True):
            model, optimizer = start(comm, options)
            with optimizer:
                if not optimizer.is_worker:
                    optimizer.serve()
                else:
                    some(optimizer, model, number, range(3))  # what it had meanwhile does not matter
                    model.load_state_dict(saved[0])
                    state = dict(saved[1])
                    if forgets:
                        del state["pycoll"]
                    optimizer.load_state_dict(state)
                    some(optimizer, model, number, range(steps // 2, steps))
                    ends.append(numbers_of(model))
        return ends

    for ends in loopback.run(3, run, timeout=30):
        if ends:
            assert torch.equal(ends[0], ends[1])
            assert not torch.equal(ends[0], ends[2])  # the test sees what residuals do


@pytest.mark.skipif(not hasattr(torch.optim, "Adafactor"), reason="this torch has no Adafactor")
def test_state_that_no_pieces_can_have():
    """Adafactor's is of rows and columns: whole where parameters are, and else refused before it is made of a part."""

    def run(comm):
        model = network()
        make = partial(torch.optim.Adafactor, list(model.parameters()))
        with pycoll.PSOptimizer(make(), model.named_parameters(), comm, piece_bytes=1 << 20) as optimizer:
            train(optimizer, model, 7, 2)
            saved = optimizer.state_dict()
            assert saved["state"][0]["row_var"].shape == (64, 1)
        with pycoll.PSOptimizer(make(), model.named_parameters(), comm, piece_bytes=700) as optimizer:
            train(optimizer, model, 7, 2)
            with pytest.raises(pycoll.InvalidArgument, match=r"'row_var' of the optimizer's state is \[\d+, 1\]"):
                optimizer.state_dict()
            with pytest.raises(pycoll.InvalidArgument, match=r"'row_var' of the optimizer's state is \[64, 1\]"):
                optimizer.load_state_dict(saved)
        wrapped = make()
        wrapped.load_state_dict({key: value for key, value in saved.items() if key != "pycoll"})
        with pytest.raises(pycoll.InvalidArgument, match="'row_var' of the optimizer's state"):
            pycoll.PSOptimizer(wrapped, model.named_parameters(), comm, piece_bytes=700)

    loopback.run(2, run, timeout=20)


def test_residuals_fit_other_pieces():
    gradient = torch.randn(40, 50, generator=torch.Generator().manual_seed(1))
    named = [("weight", torch.zeros(40, 50))]
    before, after = (cut(named, servers, piece_bytes, [True]) for servers, piece_bytes in (([0], 900), ([0, 3], 1700)))
    residuals, other = Residuals(pycoll.TopK(0.1), 0), Residuals(pycoll.TopK(0.1), 0)
    residuals.step()
    sent = [residuals.entry(piece, flat(piece.of(gradient)), None) for piece in before]
    left = gradient - torch.from_numpy(np.concatenate([entry.numbers() for entry in sent])).view(40, 50)
    state = residuals.state(before)
    assert state["step"] == 0 and np.array_equal(state["residuals"][0], left)
    other.load(state, after)
    assert np.array_equal(other.state(after)["residuals"][0], left)
    assert len(after) < len(before)


def test_a_worker_that_does_not_load_is_named():
    def run(comm):
        model = network()
        with pytest.raises(pycoll.Error) as raised:  # noqa: SIM117
            with pycoll.PSOptimizer(sgd(model.parameters()), model.named_parameters(), comm) as optimizer:
                if comm.rank == 0:
                    optimizer.load_state_dict(sgd(network().parameters()).state_dict())
                else:
                    time.sleep(3)
                    optimizer.step()
        return str(raised.value)

    for said in loopback.run(2, run, timeout=1):
        assert re.search(r"rank 0 called load_state_dict and waited 1 s for rank 1 to do so", said), said


# ---- The example


def test_example(monkeypatch, capsys):
    """With one worker of four slowed down; what it measures at length stands in docs/parameter-server.md."""
    examples = Path(__file__).parent.parent / "examples"
    monkeypatch.syspath_prepend(str(examples))
    monkeypatch.setattr("sys.argv", ["parameter_server_digits.py", "--seconds", "1.6", "--compute", "50"])
    runpy.run_path(str(examples / "parameter_server_digits.py"), run_name="__main__")
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    of_sync = {name: float(re.search(r"([0-9.]+)x", rows[name]).group(1)) for name in ("sync", "bounded(8)", "async")}
    assert of_sync["async"] > 1.5 * of_sync["sync"]
    assert "at most 0" in rows["sync"]
