"""Each case trains over ranks and compares with one process. `optimizer.py CASE...`; prints "RANK CASE ok" for each."""

import copy
import sys
import traceback
import warnings
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn import functional

import pycoll
from pycoll.agree import check_agreement

torch.set_num_threads(1)
comm = pycoll.init(timeout=30)
RANK, SIZE = comm.rank, comm.size
CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


def same_on_every_rank(what, *values):
    """Bit for bit: values are tensors or anything with a repr."""

    def text(value):
        if not isinstance(value, torch.Tensor):
            return repr(value)
        return value.detach().flatten().contiguous().view(torch.uint8).numpy().tobytes().hex()

    check_agreement(comm, what, [(f"value {i}", text(value)) for i, value in enumerate(values)])


def assert_equal(model, reference):
    """Bit for bit, parameter by parameter; and the ranks among themselves."""
    for (name, p), q in zip(model.named_parameters(), reference.parameters(), strict=True):
        assert torch.equal(p, q), f"{name}: {p} is not {q}"
    same_on_every_rank("parameters", *model.parameters())


def integers(shape, seed, low=-3, high=4, dtype=torch.float64):
    return torch.from_numpy(np.random.default_rng(seed).integers(low, high, shape)).to(dtype)


class Free(nn.Module):
    """Parameters whose gradients are given: the loss is their inner product with constants.

    Small integers, so sums over ranks are exact in any order: whatever the optimizer makes of them, a single process
    must arrive at the same bits.
    """

    def __init__(self, shapes=((5, 3), (7,), (2, 2, 2)), dtype=torch.float32):
        super().__init__()
        self.p = nn.ParameterList([nn.Parameter(integers(s, 100 + i, dtype=dtype)) for i, s in enumerate(shapes)])

    def constants(self, step, rank):
        return [integers(p.shape, (step, rank, i), dtype=p.dtype) * SIZE for i, p in enumerate(self.p)]

    def loss(self, step, rank, only=None):
        terms = [(p * c).sum() for p, c in zip(self.p, self.constants(step, rank), strict=True)]
        return sum(t for i, t in enumerate(terms) if only is None or i in only)

    def joined(self, step, **kwargs):  # what one process would minimise
        return sum(self.loss(step, rank, **kwargs) for rank in range(SIZE)) / SIZE


def pair(make, model=Free, **kwargs):
    """A distributed model and optimizer, and their single-process twins."""
    mine, reference = model(), model()
    optimizer = pycoll.DistributedOptimizer(make(mine.parameters()), mine.named_parameters(), **kwargs)
    return mine, optimizer, reference, make(reference.parameters())


def train(model, optimizer, loss, steps=4, set_to_none=True):
    for step in range(steps):
        optimizer.zero_grad(set_to_none=set_to_none)
        loss(step).backward()
        optimizer.step()


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.25, momentum=0.5, weight_decay=0.125)


def raises(kind, text, call):
    try:
        call()
    except kind as error:
        assert text in str(error), f"wanted '{text}' in '{error}'"
        return str(error)
    raise AssertionError(f"nothing raised, wanted {kind.__name__}: {text}")


@case
def every_optimizer():
    makers = [
        sgd,
        lambda p: torch.optim.Adam(p, lr=0.01),
        lambda p: torch.optim.AdamW(p, lr=0.01, foreach=True),
        lambda p: torch.optim.AdamW(p, lr=0.01, fused=True),
        lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9),
        lambda p: torch.optim.Adagrad(p, lr=0.01),
    ]
    for make in makers:
        for bucket_bytes in (1, 100, 25 << 20):
            mine, optimizer, reference, plain = pair(make, bucket_bytes=bucket_bytes)
            assert isinstance(optimizer, torch.optim.Optimizer)
            train(mine, optimizer, lambda step, m=mine: m.loss(step, RANK))
            train(reference, plain, lambda step, m=reference: m.joined(step))
            assert_equal(mine, reference)
            optimizer.close()


def regression(dtype):
    model = nn.Linear(6, 3, dtype=dtype)
    with torch.no_grad():
        model.weight.copy_(integers(model.weight.shape, 1))
        model.bias.copy_(integers(model.bias.shape, 2))
    return model


@case
def linear_exact():
    # Integers and powers of two: 8 steps need 4 more fraction bits each, under 53 in all, so every sum is exact.
    x, y = integers((4 * SIZE, 6), 3, -1, 2), integers((4 * SIZE, 3), 4)
    share = slice(4 * RANK, 4 * RANK + 4)
    make = lambda p: torch.optim.SGD(p, lr=2.0**-4)  # noqa: E731
    mine, optimizer, reference, plain = pair(make, lambda: regression(torch.float64))
    train(mine, optimizer, lambda _: SIZE * (mine(x[share]) - y[share]).square().sum() / 2, 8)
    train(reference, plain, lambda _: (reference(x) - y).square().sum() / 2, 8)
    assert_equal(mine, reference)


@case
def network_exact():
    # Two steps of a network with a hidden layer: under 53 bits as well.
    def build():
        model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).double()
        with torch.no_grad():
            for i, p in enumerate(model.parameters()):
                p.copy_(integers(p.shape, 10 + i, -1, 2))
        return model

    x, y = integers((2 * SIZE, 6), 3, -1, 2), integers((2 * SIZE, 3), 4)
    share = slice(2 * RANK, 2 * RANK + 2)
    mine, optimizer, reference, plain = pair(lambda p: torch.optim.SGD(p, lr=2.0**-6), build, bucket_bytes=64)
    train(mine, optimizer, lambda _: SIZE * (mine(x[share]) - y[share]).square().sum() / 2, 2)
    train(reference, plain, lambda _: (reference(x) - y).square().sum() / 2, 2)
    assert_equal(mine, reference)


@case
def float32_within_bound():
    # One step on random float32. With u = 2^-24 and g(n) = n u / (1 - n u) (Higham, Accuracy and Stability, 3.1):
    #   residual r = W x + b - y      is off by at most g(D + 2) (|W| |x| + |b| + |y|) =: g(D + 2) A, and |r| <= A
    #   gradient (1/B) sum_i r_i x_i  is off by at most g(D + B + P + 8) sum_i A_i |x_i| / B: at most B + P additions,
    #   and the few roundings of the mean's division, its derivative and the scale
    #   W - lr gradient               adds two roundings
    # for any order of summation, on ranks as in one process.
    per_rank, features = 37, 29
    batch = per_rank * SIZE
    rng = np.random.default_rng(5)
    x = torch.from_numpy(rng.standard_normal((batch, features))).float()
    y = torch.from_numpy(rng.standard_normal((batch, 1))).float()
    w0 = torch.from_numpy(rng.standard_normal((1, features))).float()
    share = slice(per_rank * RANK, per_rank * (RANK + 1))

    def build():
        model = nn.Linear(features, 1)
        with torch.no_grad():
            model.weight.copy_(w0)
            model.bias.zero_()
        return model

    mine, optimizer, reference, plain = pair(lambda p: torch.optim.SGD(p, lr=0.5), build)
    train(mine, optimizer, lambda _: (mine(x[share]) - y[share]).square().mean() / 2, 1)
    train(reference, plain, lambda _: (reference(x) - y).square().mean() / 2, 1)

    xd, yd, wd = x.double(), y.double(), w0.double()
    exact = wd - 0.5 * ((xd @ wd.T - yd).T @ xd) / batch
    magnitude = ((xd.abs() @ wd.T.abs() + yd.abs()).T @ xd.abs()) / batch
    gamma = lambda n: n * 2.0**-24 / (1 - n * 2.0**-24)  # noqa: E731
    bound = gamma(features + batch + SIZE + 10) * (0.5 * magnitude + wd.abs())
    for who, model in (("ranks", mine), ("one process", reference)):
        excess = ((model.weight.double() - exact).abs() - bound).max().item()
        assert excess <= 0, f"{who}: {excess} over the bound"
    same_on_every_rank("parameters", *mine.parameters())


@case
def accumulation():
    mine, optimizer, reference, plain = pair(sgd, bucket_bytes=64)
    for step in range(3):
        for opt in (optimizer, plain):
            opt.zero_grad(set_to_none=step != 1)
        with optimizer.no_sync():
            mine.loss(3 * step, RANK).backward()
            with optimizer.no_sync():
                mine.loss(3 * step + 1, RANK).backward()
            assert optimizer._launched == 0
        if step < 2:
            mine.loss(3 * step + 2, RANK).backward()
        else:  # all passes inside: step() averages
            with optimizer.no_sync():
                mine.loss(3 * step + 2, RANK).backward()
        optimizer.step()
        for micro in range(3):
            reference.joined(3 * step + micro).backward()
        plain.step()
        assert_equal(mine, reference)


@case
def without_zero_grad():
    mine, optimizer, reference, plain = pair(sgd)
    for step in range(3):  # gradients pile up on the averages of the step before
        mine.loss(step, RANK).backward()
        optimizer.step()
        reference.joined(step).backward()
        plain.step()
    assert_equal(mine, reference)


@case
def unused_parameters():
    # Rank r uses parameters 0 and, only where r is even, 1; nobody uses 2, so weight decay must not touch it either.
    for set_to_none in (True, False):
        mine, optimizer, reference, plain = pair(sgd, bucket_bytes=64 if set_to_none else 1 << 20)
        used = lambda rank: (0, 1) if rank % 2 == 0 else (0,)  # noqa: E731
        for step in range(3):
            optimizer.zero_grad(set_to_none=set_to_none)
            mine.loss(step, RANK, used(RANK)).backward()
            mean = torch.tensor([float(RANK)])
            comm.allreduce(mean, op="avg")  # the user's own collective, while some ranks have started fewer buckets
            assert mean.item() == (SIZE - 1) / 2
            optimizer.step()
            plain.zero_grad(set_to_none=set_to_none)
            (sum(reference.loss(step, r, used(r)) for r in range(SIZE)) / SIZE).backward()
            plain.step()
        assert mine.p[2].grad is None
        assert_equal(mine, reference)


@case
def rank_without_data():
    mine, optimizer, reference, plain = pair(sgd)
    for step in range(3):
        optimizer.zero_grad()
        if RANK != SIZE - 1 or step != 1 or SIZE == 1:
            mine.loss(step, RANK).backward()
        optimizer.step()
        plain.zero_grad()
        ranks = range(SIZE - 1 if step == 1 and SIZE > 1 else SIZE)
        (sum(reference.loss(step, r) for r in ranks) / SIZE).backward()
        plain.step()
    assert_equal(mine, reference)


@case
def order_of_hooks_differs():
    # Ranks reach the parameters in different orders; with a bucket each, only an agreed order of starting fits.
    mine, optimizer, reference, plain = pair(sgd, lambda: Free([(11,)] * 6), bucket_bytes=1)
    order = np.random.default_rng(RANK).permutation(6)
    for step in range(5):
        optimizer.zero_grad()
        for i in order[:-1]:
            mine.loss(step, RANK, (i,)).backward()
        mine.loss(step, RANK, (order[-1],)).backward()
        optimizer.step()
    train(reference, plain, lambda step: reference.joined(step), 5)
    assert_equal(mine, reference)


@case
def communication_overlaps():
    model = nn.Sequential(*[nn.Linear(8, 8) for _ in range(6)])
    optimizer = pycoll.DistributedOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), bucket_bytes=1)
    launched = []
    handle = model[0].weight.register_hook(lambda _: launched.append(optimizer._launched))
    model(torch.ones(2, 8)).sum().backward()
    handle.remove()
    assert launched == [0] if SIZE == 1 else launched[0] >= 8, launched
    assert optimizer._launched == len(optimizer._buckets)
    optimizer.step()


@case
def different_models_raise():
    def build(change):
        layers = {"a": nn.Linear(4, 3), "b": nn.Linear(3, 2)}
        if RANK == SIZE - 1:
            change(layers)
        return nn.ModuleDict(layers)

    def attempt(change, **kwargs):
        model = build(change)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        pycoll.DistributedOptimizer(optimizer, model.named_parameters(), **kwargs)

    def rename(layers):
        layers["c"] = layers.pop("b")

    last = SIZE - 1
    table = [
        (rename, f"parameter 2 is 'c.weight' float32[2, 3] on rank {last}, but 'b.weight' float32[2, 3] on rank 0"),
        (
            lambda m: m.update(b=nn.Linear(3, 5)),
            f"'b.weight' float32[5, 3] on rank {last}, but 'b.weight' float32[2, 3]",
        ),
        (lambda m: m["a"].double(), f"parameter 0 is 'a.weight' float64[3, 4] on rank {last}"),
        (lambda m: m["b"].bias.requires_grad_(False), f"parameter 3 is 'b.bias' float32[2] (frozen) on rank {last}"),
        (lambda m: m.pop("b"), f"parameter 2, 'b.weight' float32[2, 3] on rank 0, does not exist on rank {last}"),
        (lambda m: m.update(d=nn.Linear(2, 1)), f"'d.weight' float32[1, 2] on rank {last}, does not exist on rank 0"),
    ]
    for change, text in table:
        if SIZE > 1:
            message = raises(pycoll.MismatchError, text, lambda c=change: attempt(c))
            assert message.startswith("DistributedOptimizer: "), message
            same_on_every_rank("messages", message)
    if SIZE > 1:
        text = (
            f"bucket_bytes is {1 + last} on rank {last}, but 1 on rank 0"
            if SIZE == 2
            else "bucket_bytes is 2 on rank 1"
        )
        raises(pycoll.MismatchError, text, lambda: attempt(lambda m: None, bucket_bytes=1 + RANK))


@case
def state_dict_round_trip():
    make = lambda p: torch.optim.Adam(p, lr=0.01)  # noqa: E731
    mine, optimizer, reference, plain = pair(make)
    train(mine, optimizer, lambda step: mine.loss(step, RANK), 3)
    train(reference, plain, lambda step: reference.joined(step), 3)
    saved, weights = copy.deepcopy(optimizer.state_dict()), copy.deepcopy(mine.state_dict())
    assert saved.keys() == plain.state_dict().keys()

    again = Free()
    resumed = pycoll.DistributedOptimizer(make(again.parameters()), again.named_parameters())
    if RANK == 0:  # only rank 0 has the checkpoint
        again.load_state_dict(weights)
        resumed.load_state_dict(saved)
    resumed.broadcast_state()
    alone = Free()
    alone.load_state_dict(weights)
    alone_optimizer = make(alone.parameters())
    alone_optimizer.load_state_dict(copy.deepcopy(saved))  # a checkpoint loads without pycoll too

    for step in range(3, 6):
        for opt, loss in (
            (optimizer, mine.loss(step, RANK)),
            (resumed, again.loss(step, RANK)),
            (plain, reference.joined(step)),
            (alone_optimizer, alone.joined(step)),
        ):
            opt.zero_grad()
            loss.backward()
            opt.step()
    for model in (mine, again, alone):
        assert_equal(model, reference)


@case
def schedulers():
    makers = [
        lambda o: torch.optim.lr_scheduler.StepLR(o, 2, 0.5),
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.5, total_steps=6),
        lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 5),
        lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda e: 0.9**e),
    ]
    for make in makers:
        mine, optimizer, reference, plain = pair(sgd)
        rates = []
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # "call optimizer.step() before lr_scheduler.step()" would be one
            for opt, loss in ((optimizer, partial(mine.loss, rank=RANK)), (plain, reference.joined)):
                scheduler = make(opt)
                rates.append([])
                for step in range(5):
                    opt.zero_grad()
                    loss(step).backward()
                    opt.step()
                    scheduler.step()
                    rates[-1].append(opt.param_groups[0]["lr"])
        assert rates[0] == rates[1]
        assert_equal(mine, reference)


@case
def gradients_are_views():
    mine, optimizer, reference, plain = pair(sgd)
    train(mine, optimizer, lambda step: mine.loss(step, RANK), 1)
    if SIZE > 1:
        assert len({p.grad.untyped_storage().data_ptr() for p in mine.parameters()}) == 1
        where = [p.grad.data_ptr() for p in mine.parameters()]
        assert where == sorted(where, reverse=True), "reverse parameter order"
        assert all(w % 64 == where[0] % 64 for w in where)
    for clear in (
        lambda: optimizer.zero_grad(set_to_none=False),
        lambda: optimizer.zero_grad(set_to_none=True),
        lambda: mine.zero_grad(),
        lambda: optimizer.optimizer.zero_grad(),
    ):
        clear()
        mine.loss(1, RANK).backward()
        optimizer.step()
        if SIZE > 1:
            assert [p.grad.data_ptr() for p in mine.parameters()] == where
    train(reference, plain, lambda step: reference.joined(min(step, 1)), 5)
    assert_equal(mine, reference)


@case
def kinds_of_parameters():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
            self.transposed = nn.Parameter(torch.zeros(3, 5).T)
            self.expanded_view = nn.Parameter(torch.zeros(4, 6)[:, ::2])
            self.scalar = nn.Parameter(torch.zeros(()))
            self.nothing = nn.Parameter(torch.zeros(0, 3))
            self.float16 = nn.Parameter(torch.zeros(5, dtype=torch.float16))
            self.bfloat16_ = nn.Parameter(torch.zeros(5, dtype=torch.bfloat16))
            self.float64 = nn.Parameter(torch.zeros(5, dtype=torch.float64))
            self.complex64 = nn.Parameter(torch.zeros(5, dtype=torch.complex64))
            self.embedding = nn.Embedding(6, 2, sparse=True)
            self.frozen = nn.Parameter(torch.full((3,), float(RANK)), requires_grad=False)
            with torch.no_grad():
                for p in (self.conv.weight, self.conv.bias, self.embedding.weight):
                    p.zero_()

        def loss(self, rank):
            total = functional.embedding(torch.tensor([1, 4]), self.embedding.weight, sparse=True).sum() * rank * SIZE
            for i, (name, p) in enumerate(self.named_parameters()):
                if p.requires_grad and not name.startswith("embedding"):
                    total = total + (p * integers(p.shape, (rank, i), dtype=p.dtype) * SIZE).real.sum()
            return total

    mine, optimizer, reference, plain = pair(lambda p: torch.optim.SGD(p, lr=0.25), Mixed, bucket_bytes=128)
    for _ in range(2):
        optimizer.zero_grad()
        mine.loss(RANK).backward()
        optimizer.step()
        plain.zero_grad()
        for rank in range(SIZE):
            (reference.loss(rank) / SIZE).backward()
        plain.step()
    with torch.no_grad():
        reference.frozen.zero_()  # rank 0's
    assert_equal(mine, reference)
    if SIZE > 1:
        assert mine.conv.weight.grad.stride() == mine.conv.weight.stride()
        assert mine.transposed.grad.stride() == mine.transposed.stride()


@case
def clipping():
    mine, optimizer, reference, plain = pair(sgd)
    for step in range(3):
        optimizer.zero_grad()
        mine.loss(step, RANK).backward()
        optimizer.synchronize()
        optimizer.synchronize()  # a second one does nothing
        norm = torch.nn.utils.clip_grad_norm_(mine.parameters(), 2.0)
        optimizer.step()
        plain.zero_grad()
        reference.joined(step).backward()
        assert norm == torch.nn.utils.clip_grad_norm_(reference.parameters(), 2.0)
        plain.step()
    assert_equal(mine, reference)


@case
def skipped_steps():
    mine, optimizer, reference, plain = pair(sgd, bucket_bytes=1)
    for step in range(6):
        optimizer.zero_grad()
        mine.loss(step, RANK, None if RANK else (0, 1)).backward()
        if step % 3 == 1:
            continue  # backward without step: the next zero_grad() finishes what is under way
        optimizer.synchronize()
        if step % 3 == 2:
            continue
        optimizer.step()
    for step in (0, 3):
        plain.zero_grad()
        (sum(reference.loss(step, r, None if r else (0, 1)) for r in range(SIZE)) / SIZE).backward()
        plain.step()
    assert_equal(mine, reference)


@case
def closures():
    x, y = integers((4 * SIZE, 6), 3, dtype=torch.float32), integers((4 * SIZE, 3), 4, dtype=torch.float32)
    share = slice(4 * RANK, 4 * RANK + 4)
    model = regression(torch.float32)
    make = lambda p: torch.optim.LBFGS(p, max_iter=8, line_search_fn="strong_wolfe")  # noqa: E731
    optimizer = pycoll.DistributedOptimizer(make(model.parameters()), model.named_parameters())

    def closure():
        optimizer.zero_grad()
        loss = (model(x[share]) - y[share]).square().mean()
        loss.backward()
        return loss

    losses = [float(optimizer.step(closure)) for _ in range(4)]
    assert losses[-1] < losses[0] / 2
    same_on_every_rank("losses and parameters", losses, *model.parameters())


@case
def initial_state_comes_from_rank_0():
    torch.manual_seed(RANK)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    before = [p.detach().clone() for p in model.parameters()]
    inner = torch.optim.SGD(model.parameters(), lr=0.1 * (RANK + 1), momentum=0.5)
    if RANK == 0:  # only rank 0 has momentum
        model(torch.randn(5, 3)).square().sum().backward()
        inner.step()
        before = [p.detach().clone() for p in model.parameters()]
        inner.zero_grad()
    optimizer = pycoll.DistributedOptimizer(inner, model.named_parameters())
    optimizer.broadcast(model.buffers())
    assert optimizer.param_groups[0]["lr"] == 0.1
    momentum = [optimizer.state[p]["momentum_buffer"] for p in model.parameters()]
    same_on_every_rank("state", *model.parameters(), *model.buffers(), *momentum)
    if RANK == 0:
        assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))


@case
def added_group():
    mine, reference = Free(), Free()
    optimizer = pycoll.DistributedOptimizer(sgd([mine.p[0]]), mine.named_parameters())
    plain = sgd([reference.p[0]])
    train(mine, optimizer, lambda step: mine.loss(step, RANK, (0,)), 2)
    train(reference, plain, lambda step: reference.joined(step, only=(0,)), 2)
    optimizer.add_param_group({"params": [mine.p[1], mine.p[2]], "lr": 0.5})
    plain.add_param_group({"params": [reference.p[1], reference.p[2]], "lr": 0.5})
    train(mine, optimizer, lambda step: mine.loss(step, RANK), 3)
    train(reference, plain, reference.joined, 3)
    assert_equal(mine, reference)
    if SIZE > 1:
        mine.extra = nn.Parameter(torch.zeros(2 + RANK))
        message = raises(
            pycoll.MismatchError, "'group2.0' float32[", lambda: optimizer.add_param_group({"params": mine.extra})
        )
        assert "[3] in group 2 on rank 1" in message
        assert len(optimizer.param_groups) == 2


@case
def two_optimizers():
    # As in adversarial training: the second loss also reaches the first optimizer's parameters.
    def run(model, first, second, loss):
        for step in range(4):
            first.zero_grad()
            loss(2 * step, only=(0, 1)).backward()
            first.step()
            second.zero_grad()
            loss(2 * step + 1).backward()
            second.step()

    mine, reference = Free(), Free()
    run(
        mine,
        pycoll.DistributedOptimizer(sgd(mine.p[:2]), bucket_bytes=1),
        pycoll.DistributedOptimizer(sgd(mine.p[2:]), bucket_bytes=1),
        lambda step, **kwargs: mine.loss(step, RANK, **kwargs),
    )
    run(reference, sgd(reference.p[:2]), sgd(reference.p[2:]), reference.joined)
    assert_equal(mine, reference)


@case
def hooks_run_once_and_go():
    mine, optimizer, reference, plain = pair(sgd)
    calls = []
    optimizer.register_step_post_hook(lambda *_: calls.append("post"))
    optimizer.optimizer.register_step_pre_hook(lambda *_: calls.append("pre"))
    train(mine, optimizer, lambda step: mine.loss(step, RANK), 2)
    assert calls == ["pre", "post"] * 2
    if SIZE > 1:
        text = "parameter 'p.0' belongs to another DistributedOptimizer"
        raises(
            pycoll.InvalidArgument,
            text,
            lambda: pycoll.DistributedOptimizer(sgd(mine.parameters()), mine.named_parameters()),
        )
    optimizer.close()
    optimizer.close()
    raises(pycoll.Error, "was closed", optimizer.step)
    again = pycoll.DistributedOptimizer(optimizer.optimizer, mine.named_parameters())
    for step in (2, 3):
        again.zero_grad()
        mine.loss(step, RANK).backward()
        again.step()
    train(reference, plain, reference.joined, 4)
    assert_equal(mine, reference)
    del again, optimizer  # without close(): the hooks go with the optimizer
    if SIZE > 1:
        pycoll.DistributedOptimizer(sgd(mine.parameters()), mine.named_parameters()).close()


@case
def misuse():
    mine, optimizer, _, _ = pair(sgd)
    if SIZE > 1:
        mine.loss(0, RANK).backward()
        text = "backward() reached parameter 'p.2' twice before step(): run all passes but the last inside no_sync()"
        raises(pycoll.Error, "twice before step()", lambda: mine.loss(1, RANK, (2,)).backward())
        optimizer.zero_grad()
        mine.loss(0, RANK).backward()
        assert text in raises(pycoll.Error, text, lambda: mine.loss(1, RANK, (2,)).backward())
        raises(pycoll.Error, "gradients were changed", optimizer.step)  # by the pass that was refused
        optimizer.zero_grad()
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    optimizer = pycoll.DistributedOptimizer(sgd(model.parameters()), model.named_parameters())
    model.bias.requires_grad_(True)
    model(torch.ones(1, 2)).sum().backward()
    raises(pycoll.InvalidArgument, "parameter 'bias' has a gradient but was frozen", optimizer.step)


def main(names):
    for name in names or CASES:
        try:
            CASES[name]()
        except BaseException:
            print(f"{RANK} {name} failed\n{traceback.format_exc()}", flush=True)
            raise
        print(f"{RANK} {name} ok", flush=True)
        comm.barrier()
    comm.close()


if __name__ == "__main__":
    main(sys.argv[1:])
