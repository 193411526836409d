"""Either optimizer where a torch optimizer was: scalers, groups, schedulers, frozen parameters. Run by sharded.py."""

from __future__ import annotations

import contextlib
import warnings

import numpy as np
import torch
from cases import RANK, SIZE, case, raises
from torch import nn

import pycoll

torch.set_num_threads(1)


def integers(shape, *seed):
    return torch.from_numpy(np.random.default_rng(seed).integers(-3, 4, shape)).float()


class Given(nn.Module):
    """Parameters whose gradients are given: multiples of the number of ranks, so that means are exact in any order."""

    def __init__(self, shapes=((70, 5), (33,), (4, 5, 6), (1,))):
        super().__init__()
        self.p = nn.ParameterList([nn.Parameter(integers(shape, i)) for i, shape in enumerate(shapes)])

    def loss(self, step, rank=RANK, only=None):
        chosen = [i for i in range(len(self.p)) if only is None or i in only]
        return sum((self.p[i] * integers(self.p[i].shape, step, rank, i) * SIZE).sum() for i in chosen)

    def joined(self, step, **kwargs):
        """What one process would minimise."""
        return sum(self.loss(step, rank, **kwargs) for rank in range(SIZE)) / SIZE


def sharded(*args, **kwargs):
    return pycoll.ShardedOptimizer(*args, bucket_bytes=600, **kwargs)


def sharded_throughout(*args, **kwargs):
    return pycoll.ShardedOptimizer(*args, bucket_bytes=600, shard_gradients=True, **kwargs)


def by_parameters(*args, **kwargs):
    return pycoll.ShardedOptimizer(*args, bucket_bytes=600, split="parameters", **kwargs)


KINDS = [pycoll.DistributedOptimizer, sharded, sharded_throughout, by_parameters]
WHOLE = [pycoll.DistributedOptimizer, sharded, by_parameters]  # synchronize() gives every rank all gradients


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.25, momentum=0.5, weight_decay=0.125)


def adam(parameters):
    return torch.optim.Adam(parameters, lr=0.01, weight_decay=0.1)


def twins(kind, make=sgd, model=Given):
    """A model and its optimizer over ranks, and the same of one process."""
    mine, reference = model(), model()
    return mine, kind(make(mine.parameters()), mine.named_parameters()), reference, make(reference.parameters())


def train(optimizer, loss, steps):
    for step in steps:
        optimizer.zero_grad()
        loss(step).backward()
        optimizer.step()


def assert_equal(mine, reference):
    for (name, p), q in zip(mine.named_parameters(), reference.parameters(), strict=True):
        assert torch.equal(p, q), f"{name} differs by {(p - q).abs().max()}"


@case
def groups_and_schedules():
    """Each group has its rate, a schedule changes them, and a group comes later."""
    for kind in KINDS:
        mine, reference = Given(), Given()
        pairs = []
        for model, wrap in ((mine, kind), (reference, None)):
            groups = [{"params": [model.p[0]]}, {"params": [model.p[1], model.p[3]], "lr": 0.5, "weight_decay": 0.0}]
            optimizer = torch.optim.AdamW(groups, lr=0.25)
            optimizer = wrap(optimizer, model.named_parameters()) if wrap else optimizer
            schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, [lambda e: 0.5**e, lambda e: 1 / (1 + e)])
            rates = []
            for step in range(3):
                train(optimizer, lambda s, m=model, w=wrap: (m.loss if w else m.joined)(s, only=(0, 1, 3)), [step])
                schedule.step()
                rates.append([group["lr"] for group in optimizer.param_groups])
            optimizer.add_param_group({"params": [model.p[2]], "lr": 0.125})
            train(optimizer, model.loss if wrap else model.joined, range(3, 6))
            pairs.append(rates)
        assert pairs[0] == pairs[1], pairs
        assert_equal(mine, reference)


@case
def accumulation():
    for kind in KINDS:
        mine, optimizer, reference, plain = twins(kind, adam)
        for step in range(4):
            optimizer.zero_grad()
            plain.zero_grad()
            for micro in range(3):  # in the last step all passes are inside, and step() averages
                with optimizer.no_sync() if micro < 2 or step == 3 else contextlib.nullcontext():
                    mine.loss(3 * step + micro).backward()
                reference.joined(3 * step + micro).backward()
            optimizer.step()
            plain.step()
        assert_equal(mine, reference)


@case
def gradients_of_some_or_none():
    """A rank without a gradient has zeros; a parameter without one anywhere is skipped, its decay and momentum too."""
    for kind in KINDS:
        for make in (sgd, adam):
            mine, optimizer, reference, plain = twins(kind, make)
            used = [lambda rank: (0, 1), lambda rank: (0,) if rank else (0, 3), lambda rank: (1,), lambda rank: ()]
            for step in range(8):
                optimizer.zero_grad()
                plain.zero_grad()
                if chosen := used[step % 4](RANK):
                    mine.loss(step, only=chosen).backward()
                for rank in range(SIZE):
                    if chosen := used[step % 4](rank):
                        (reference.loss(step, rank, only=chosen) / SIZE).backward()
                optimizer.step()
                plain.step()
            assert_equal(mine, reference)
            assert torch.equal(mine.p[2], Given().p[2])


@case
def frozen_for_a_while():
    for kind in KINDS:
        mine, optimizer, reference, plain = twins(kind)
        for step in range(6):
            for model in (mine, reference):
                model.p[1].requires_grad_(step not in (2, 3))
            train(optimizer, mine.loss, [step])
            train(plain, reference.joined, [step])
        assert_equal(mine, reference)


@case
def frozen_from_the_start():
    for kind in KINDS:
        mine, reference = Given(), Given()
        for model in (mine, reference):
            model.p[1].requires_grad_(False)
        with torch.no_grad():
            mine.p[1].add_(RANK)
        optimizer, plain = kind(adam(mine.parameters()), mine.named_parameters()), adam(reference.parameters())
        train(optimizer, mine.loss, range(3))
        train(plain, reference.joined, range(3))
        assert_equal(mine, reference)  # rank 0's, of the frozen one
        mine.p[1].requires_grad_(True)
        mine.loss(3).backward()
        raises(pycoll.InvalidArgument, "'p.1' has a gradient but was frozen", optimizer.step)
        optimizer.close()


@case
def closures():
    for kind in KINDS:
        mine, optimizer, reference, plain = twins(kind, adam)

        def closure(optimizer, loss):
            optimizer.zero_grad()
            value = loss()
            value.backward()
            return value

        for step in range(4):
            got = optimizer.step(lambda o=optimizer, m=mine, s=step: closure(o, lambda: m.loss(s)))
            wanted = plain.step(lambda o=plain, m=reference, s=step: closure(o, lambda: m.joined(s)))
            assert abs(got - wanted) <= 1e-5 * abs(wanted), (got, wanted)
        assert_equal(mine, reference)


@case
def implementations():
    for kind in KINDS[:2]:
        for options in ({"foreach": True}, {"fused": True}, {"foreach": False}):
            make = lambda p, o=options: torch.optim.AdamW(p, lr=0.01, **o)  # noqa: E731
            mine, optimizer, reference, plain = twins(kind, make)
            train(optimizer, mine.loss, range(4))
            train(plain, reference.joined, range(4))
            assert_equal(mine, reference)


@case
def gradient_scaler():
    """Steps with an infinite gradient on one rank are left out on all, and the scale comes down alike."""
    for kind in WHOLE:
        for options in ({}, {"fused": True}):
            make = lambda p, o=options: torch.optim.SGD(p, lr=0.25, momentum=0.5, **o)  # noqa: E731
            mine, optimizer, reference, plain = twins(kind, make)
            scalers = [torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2) for _ in range(2)]
            for step in range(6):
                bad = float("inf") if step == 2 else 1.0
                optimizer.zero_grad()
                scalers[0].scale(mine.loss(step) * (bad if RANK == SIZE - 1 else 1.0)).backward()
                optimizer.synchronize()
                if step % 2:
                    scalers[0].unscale_(optimizer)
                    norm = torch.nn.utils.clip_grad_norm_(mine.parameters(), 8.0)
                scalers[0].step(optimizer)
                scalers[0].update()
                plain.zero_grad()
                scalers[1].scale(reference.joined(step) * bad).backward()
                if step % 2:
                    scalers[1].unscale_(plain)
                    assert norm == torch.nn.utils.clip_grad_norm_(reference.parameters(), 8.0)
                scalers[1].step(plain)
                scalers[1].update()
            assert scalers[0].get_scale() == scalers[1].get_scale()
            assert_equal(mine, reference)


@case
def changed_gradients_are_noticed():
    """A scaler or clipping in between would see some gradients averaged and others not."""
    for kind in KINDS[:3]:
        for change in ("scaler", "clipping"):
            mine, optimizer, _, _ = twins(kind)
            if kind is pycoll.DistributedOptimizer and SIZE == 1:
                continue  # nothing is averaged
            scaler = torch.amp.GradScaler("cpu")
            scaler.scale(mine.loss(0, only=(0, 1, 3))).backward()  # not all, so that some buckets have not started
            if change == "scaler":
                text = "GradScaler has to see averages"
                call = lambda s=scaler, o=optimizer: s.step(o)  # noqa: E731
            else:
                text = "gradients were changed between backward() and step()"
                torch.nn.utils.clip_grad_norm_(mine.parameters(), 1.0)
                call = optimizer.step
            raises(pycoll.Error, text, call)
            optimizer.close()


@case
def twice_backward_is_noticed():
    for kind in KINDS:
        mine, optimizer, _, _ = twins(kind)
        if kind is pycoll.DistributedOptimizer and SIZE == 1:
            continue
        mine.loss(0).backward()
        with optimizer.no_sync():
            raises(pycoll.Error, "twice before step()", lambda m=mine: m.loss(1).backward())
        optimizer.close()


@case
def sparse_gradients():
    """Averaged dense, said once."""
    for kind in KINDS if SIZE > 1 else KINDS[1:]:
        mine, reference = (nn.Embedding(40, 3, sparse=sparse) for sparse in (True, False))
        with torch.no_grad():
            for model in (mine, reference):
                model.weight.copy_(integers((40, 3), 9))
        optimizer, plain = kind(sgd(mine.parameters()), mine.named_parameters()), sgd(reference.parameters())
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for step in range(3):
                optimizer.zero_grad()
                (mine(torch.tensor([step, RANK + 5, 39])) * SIZE).sum().backward()
                optimizer.step()
                plain.zero_grad()
                for rank in range(SIZE):
                    reference(torch.tensor([step, rank + 5, 39])).sum().backward()
                plain.step()
        texts = [str(warning.message) for warning in caught]
        assert len(texts) == 1 and "'weight' has sparse gradients" in texts[0], texts
        assert_equal(mine, reference)


@case
def different_models():
    if SIZE == 1:
        return
    last = SIZE - 1
    table = [
        (lambda m: sgd([{"params": m.p[:2]}, {"params": m.p[2:]}]), "parameter 2 is"),
        (lambda m: adam(m.parameters()), "the optimizer is Adam"),
        (lambda m: sgd(m.p[:3]), "parameter 3, 'p.3' float32[1] on rank 0, does not exist on rank"),
    ]
    for kind in KINDS:
        for make, text in table:
            model = Given()
            inner = (make if last == RANK else lambda m: sgd(m.parameters()))(model)
            raises(pycoll.MismatchError, text, lambda k=kind, i=inner, m=model: k(i, m.named_parameters()))
            assert model.p[0].untyped_storage().nbytes() == 70 * 5 * 4, "parameters stay where they were"


@case
def initial_state_is_that_of_rank_0():
    """Parameters, hyperparameters and the state of a wrapped optimizer that has stepped before."""
    for kind in KINDS:
        mine, reference = Given(), Given()
        inner, plain = adam(mine.parameters()), adam(reference.parameters())
        train(plain, reference.joined, range(2))
        if RANK == 0:
            train(inner, mine.joined, range(2))
        else:
            inner.param_groups[0]["lr"] = 7.0
            with torch.no_grad():
                mine.p[0].add_(RANK)
        optimizer = kind(inner, mine.named_parameters())
        train(optimizer, mine.loss, range(2, 5))
        train(plain, reference.joined, range(2, 5))
        assert optimizer.param_groups[0]["lr"] == 0.01
        assert_equal(mine, reference)
