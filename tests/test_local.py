"""pycoll.LocalSGD and DiLoCo: against single-process references, what they send, and what goes on meanwhile."""

import copy
import math
import re
import sys
import threading
from functools import partial
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
import pycoll  # noqa: E402
from pycoll import loopback  # noqa: E402

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SHAPES = [(40, 3), (50,), (5, 5)]  # DiLoCo deals them to fragments by size: the first; the others


def model_of(rank):
    """Construction makes ranks alike: rank 0's."""
    return [torch.nn.Parameter(torch.full(shape, float(1 + rank + i))) for i, shape in enumerate(SHAPES)]


def gradients(rank, step):
    generator = torch.Generator().manual_seed(1000 * rank + step)
    return [torch.randn(shape, generator=generator) for shape in SHAPES]


def walk(rank, model, optimizer, steps):
    for step in steps:
        for parameter, gradient in zip(model, gradients(rank, step), strict=True):
            parameter.grad = gradient
        optimizer.step()


def reference(ranks, steps, every, delay, alpha, begins):
    """Algorithm 2 of Streaming DiLoCo (arXiv 2501.18512) for all ranks in one process, each parameter by itself.

    begins: step of each parameter's first agreement. The outer optimizer is written out.
    """
    local = [[p.detach().double() for p in model_of(0)] for _ in range(ranks)]
    shared = [p.clone() for p in local[0]]
    momentum = [torch.zeros_like(p) for p in shared]
    means = [None] * len(shared)
    for step in range(1, steps + 1):
        for rank in range(ranks):
            for i, gradient in enumerate(gradients(rank, step - 1)):
                local[rank][i] = local[rank][i] - 0.1 * gradient.double()
        for i, begin in enumerate(begins):
            if step >= begin and (step - begin) % every == 0:
                means[i] = sum(shared[i] - own[i] for own in local) / ranks
            if step >= begin + delay and (step - begin - delay) % every == 0:
                momentum[i] = 0.9 * momentum[i] + means[i]
                shared[i] = shared[i] - 0.7 * (means[i] + 0.9 * momentum[i])
                for own in local:
                    own[i] = alpha * own[i] + (1 - alpha) * shared[i]
    return local


@pytest.mark.parametrize(
    ("how", "alpha", "begins"),
    [
        ({}, 0, (6, 6, 6)),
        ({"fragments": 2}, 0, (3, 6, 6)),
        ({"fragments": 2, "delay": 2}, 0.5, (3, 6, 6)),
        ({"delay": 5, "alpha": 0.25}, 0.25, (6, 6, 6)),
    ],
    ids=str,
)
def test_diloco_is_the_published_algorithm(how, alpha, begins):
    def run(comm):
        model = model_of(comm.rank)
        optimizer = pycoll.DiLoCo(torch.optim.SGD(model, lr=0.1), comm=comm, every=6, **how)
        walk(comm.rank, model, optimizer, range(20))
        before = [p.detach().clone() for p in model]
        optimizer.synchronize()
        return before, [p.detach().clone() for p in model]

    results = loopback.run(3, run, timeout=30)
    expected = reference(3, 20, 6, how.get("delay", 0), alpha, begins)
    for (before, after), wanted in zip(results, expected, strict=True):
        for got, want in zip(before, wanted, strict=True):
            assert (got - want).abs().max() < 2e-5  # 20 steps in float32, of numbers below 16
        assert all(torch.equal(a, b) for a, b in zip(after, results[0][1], strict=True))


def test_local_sgd_of_every_step_is_allreduce():
    def run(comm):
        models = model_of(comm.rank), model_of(comm.rank)
        local = pycoll.LocalSGD(torch.optim.SGD(models[0], lr=0.1), comm=comm, every=1)
        dense = pycoll.DistributedOptimizer(torch.optim.SGD(models[1], lr=0.1), comm=comm)
        walk(comm.rank, models[0], local, range(10))
        walk(comm.rank, models[1], dense, range(10))
        return max(float((a - b).abs().max().detach()) for a, b in zip(*models, strict=True))

    assert max(loopback.run(3, run, timeout=30)) < 1e-5


@pytest.mark.parametrize("how", [{}, {"delay": 2}, {"delay": 2, "alpha": 0}, {"fragments": 3}, {"alpha": 0.3}], ids=str)
def test_synchronizing_where_nothing_was_trained_changes_nothing(how):
    """Before a step, after a round, and again: no outer step, which momentum would make one."""

    def run(comm, look):
        model = model_of(comm.rank)
        optimizer = pycoll.DiLoCo(torch.optim.SGD(model, lr=0.1), comm=comm, every=4, **how)
        whole = not how  # of the others no round leaves all ranks with the same
        for begin, end in ((0, 4), (4, 8), (8, 10)):
            for _ in range(look):
                if whole or begin == 0:
                    optimizer.synchronize()
            walk(comm.rank, model, optimizer, range(begin, end))
        for _ in range(1 + look):
            optimizer.synchronize()
        return [p.detach().clone() for p in model]

    results = [loopback.run(2, partial(run, look=look), timeout=30) for look in (0, 2)]
    for model in (model for result in results for model in result):
        assert all(torch.equal(a, b) for a, b in zip(model, results[0][0], strict=True))


def test_ranks_go_on_while_a_fragment_travels():
    """Rank 1 starts its part of the allreduce only when rank 0 has taken two more steps."""
    ahead = threading.Event()

    def run(comm):
        model = model_of(comm.rank)
        optimizer = pycoll.DiLoCo(torch.optim.SGD(model, lr=0.1), comm=comm, every=4, delay=3)
        walk(comm.rank, model, optimizer, range(3))
        if comm.rank == 1:
            assert ahead.wait(20)
        walk(comm.rank, model, optimizer, range(3, 6))
        if comm.rank == 0:
            ahead.set()
        walk(comm.rank, model, optimizer, range(6, 12))

    loopback.run(2, run, timeout=20)


@pytest.mark.parametrize(
    "how",
    [{"codec": pycoll.Int4(), "fragments": 2, "delay": 2}, {"codec": pycoll.TopK(0.1), "feedback": False}],
    ids=str,
)
def test_training_goes_on_from_a_checkpoint(how):
    def make(comm, start=None):
        model = model_of(comm.rank)
        optimizer = torch.optim.AdamW(model, lr=0.01)
        optimizer = pycoll.DiLoCo(optimizer, comm=comm, every=4, **how)
        if start is not None:
            for parameter, saved in zip(model, start[0], strict=True):
                parameter.data.copy_(saved)
            optimizer.load_state_dict(start[1])
        return model, optimizer

    def run(comm):
        model, optimizer = make(comm)
        walk(comm.rank, model, optimizer, range(9))  # with a delay: a fragment is under way
        saved = copy.deepcopy(([p.detach() for p in model], optimizer.state_dict()))  # torch keeps references
        again, other = make(comm, saved)
        walk(comm.rank, model, optimizer, range(9, 18))
        walk(comm.rank, again, other, range(9, 18))
        norms = [fragment["residual_norm"] for fragment in optimizer.stats()["fragments"]]
        assert all((norm > 0) == how.get("feedback", True) for norm in norms)
        with pytest.raises(pycoll.InvalidArgument, match="the state has fragments of"):
            saved[1]["pycoll"]["fragments"].pop()
            other.load_state_dict(saved[1])
        return all(torch.equal(a, b) for a, b in zip(model, again, strict=True))

    assert all(loopback.run(3, run, timeout=30))


def test_accuracy_and_bytes():
    """4 ranks, 200 steps of AdamW on digits: 20 times fewer bytes than averaging gradients, and as good a model."""
    digits, replicas = examples()
    data = digits.load(0, torch.float32)
    inner = partial(torch.optim.AdamW, lr=3e-3)
    ways = {
        "all-reduce": pycoll.DistributedOptimizer,
        "local SGD": partial(pycoll.LocalSGD, every=5),
        "DiLoCo int4": partial(pycoll.DiLoCo, every=20, codec=pycoll.Int4()),
        "streamed int8": partial(pycoll.DiLoCo, every=20, codec=pycoll.Int8(), fragments=3, delay=2),
    }

    def train(comm):
        return [
            replicas.train(comm, data, label, lambda o, named, w=wrap: w(o, named, comm), steps=200, inner=inner)
            for label, wrap in ways.items()
        ]

    torch.set_num_threads(1)
    dense, local, diloco, streamed = loopback.run(4, train, timeout=60)[0]
    assert dense.accuracy > 0.95
    assert all(run.accuracy > dense.accuracy - 0.01 for run in (local, diloco, streamed))
    # Not 5 times: in shared memory arrays of this size take an algorithm that sends more than the buckets' one.
    assert local.wire_bytes * 2 < dense.wire_bytes
    assert diloco.wire_bytes * 20 < dense.wire_bytes and streamed.wire_bytes * 20 < dense.wire_bytes


def test_the_example(tmp_path, capsys):
    digits, replicas = examples()
    pytest.importorskip("matplotlib")
    import local_digits

    data = digits.load(0, torch.float32)
    size, runs = loopback.run(2, partial(local_digits.everything, data=data, steps=5, every=5), timeout=60)[0]
    replicas.table(runs)
    assert len(re.findall(r"\d\d\.\d\d%", capsys.readouterr().out)) == 6
    local_digits.plot(size, runs, tmp_path / "local.png")
    assert (tmp_path / "local.png").stat().st_size > 10_000


def examples():
    pytest.importorskip("sklearn")
    pytest.importorskip("tqdm")
    if str(EXAMPLES) not in sys.path:
        sys.path.insert(0, str(EXAMPLES))
    import digits
    import replicas

    return digits, replicas


# ---- What goes wrong


def wrap(comm, **how):
    return pycoll.DiLoCo(torch.optim.SGD(model_of(0), lr=0.1), comm=comm, **how)


@pytest.mark.parametrize(
    ("words", "call"),
    [
        ("every is 0, wanted a whole number of at least 1", partial(wrap, every=0)),
        ("every is True", partial(wrap, every=True)),
        ("fragments is 5, wanted a whole number of at least 1 and at most 4", partial(wrap, every=4, fragments=5)),
        ("delay is 4, wanted a whole number of at least 0 and at most 3", partial(wrap, every=4, delay=4)),
        ("alpha is 1.5", partial(wrap, alpha=1.5)),
        ("alpha is nan", partial(wrap, alpha=math.nan)),
        ("codec is 'int8'", partial(wrap, codec="int8")),
        ("codec is PowerSGD", partial(wrap, codec=pycoll.PowerSGD(1))),
        ("LocalSGD: every is 0", lambda comm: pycoll.LocalSGD(torch.optim.SGD(model_of(0)), comm=comm, every=0)),
        ("optimizer must be a torch.optim.Optimizer, got int", lambda comm: pycoll.DiLoCo(3, comm=comm)),
        ("is a DiLoCo, which DiLoCo cannot wrap", lambda comm: pycoll.DiLoCo(wrap(comm), comm=comm)),
        ("close() it and build another", lambda comm: wrap(comm).add_param_group({"params": []})),
        (
            "DiLoCo: on rank 0 parameter 'group0.0' is float64; Int8",
            lambda comm: pycoll.DiLoCo(
                torch.optim.SGD([torch.nn.Parameter(torch.ones(3, dtype=torch.float64))]),
                comm=comm,
                codec=pycoll.Int8(),
            ),
        ),
    ],
)
def test_bad_arguments(words, call):
    def run(comm):
        with pytest.raises(pycoll.InvalidArgument) as raised:
            call(comm)
        return str(raised.value)

    (message,) = loopback.run(1, run, timeout=20)
    assert words in message and "\n" not in message


def test_ranks_that_disagree():
    """All say the same: of arguments, of the outer optimizer, of what wraps, and of who is in which group."""

    def sgd(parameters):
        return torch.optim.SGD(parameters, lr=0.1)

    def grouped(comm, apart):
        model = model_of(0)
        groups = [{"params": model[:2]}, {"params": model[2:]}] if apart else [{"params": model}]
        pycoll.DiLoCo(sgd(groups), [(str(i), p) for i, p in enumerate(model)], comm)

    def swapped(comm, odd):
        model = model_of(0)
        order = [model[:1], model[1:]] if odd else [model[:2], model[2:]]
        named = [("abc"[i], p) for i, p in enumerate(model)]
        pycoll.DiLoCo(sgd([{"params": group} for group in order]), named, comm)

    cases = (
        (lambda comm, odd: wrap(comm, every=10 + odd), "DiLoCo: every is 11 on rank 2, but 10 on rank 0"),
        (
            lambda comm, odd: wrap(comm, outer=lambda p: torch.optim.SGD(p, lr=0.5 + odd / 4)),
            "DiLoCo: lr of the outer optimizer is 0.75 on rank 2, but 0.5 on rank 0",
        ),
        (
            lambda comm, odd: wrap(comm, outer=torch.optim.Adam if odd else sgd),
            "DiLoCo: the outer optimizer is Adam on rank 2, but SGD on rank 0",
        ),
        (
            lambda comm, odd: (pycoll.LocalSGD if odd else pycoll.DiLoCo)(sgd(model_of(0)), comm=comm, every=10),
            "rank 2 made a LocalSGD, but rank 0 a DiLoCo",
        ),
        (grouped, "DiLoCo: the number of parameter groups is 2 on rank 2, but 1 on rank 0"),
        (
            swapped,
            "DiLoCo: parameter 'b' of the optimizer "
            "is number 0 of group 1 on rank 2, but number 1 of group 0 on rank 0",
        ),
    )

    def run(comm):
        said = []
        for call, _ in cases:
            with pytest.raises(pycoll.MismatchError) as raised:
                call(comm, comm.rank // 2)
            said.append(str(raised.value))
        return said

    for said in loopback.run(3, run, timeout=20):
        assert said == [words for _, words in cases]


def test_a_state_that_is_not_its_own_is_refused():
    def run(comm):
        optimizer = wrap(comm)
        plain = torch.optim.SGD(model_of(0), lr=0.1).state_dict()
        with pytest.raises(pycoll.InvalidArgument, match="rank 0 wanted a state of a DiLoCo, got one without 'pycoll'"):
            optimizer.load_state_dict(plain)
        with pytest.raises(pycoll.InvalidArgument, match="got one whose 'pycoll' has step, residuals"):
            optimizer.load_state_dict({**plain, "pycoll": {"step": 1, "residuals": {}}})

    loopback.run(1, run, timeout=20)
