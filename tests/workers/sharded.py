"""ShardedOptimizer over ranks, and what it shares with DistributedOptimizer (drop_in.py). sharded.py CASE..."""

from __future__ import annotations

import copy
import functools
import sys
import weakref

import torch
from cases import RANK, SIZE, case, comm, main, raises
from drop_in import Given, adam, assert_equal, integers, sgd, sharded, sharded_throughout, train, twins
from torch import nn

import pycoll
from pycoll import DistributedOptimizer, ShardedOptimizer
from pycoll.agree import check_agreement
from pycoll.replicate import gather_objects

optim = torch.optim
MAKERS = {
    "SGD": lambda p: optim.SGD(p, lr=0.1),
    "SGD with momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
    "Adam": lambda p: optim.Adam(p, lr=0.01, amsgrad=True),
    "AdamW": lambda p: optim.AdamW(p, lr=0.01),
    "AdamW, fused": lambda p: optim.AdamW(p, lr=0.01, fused=True),
    "Adagrad": lambda p: optim.Adagrad(p, lr=0.05),
    "RMSprop": lambda p: optim.RMSprop(p, lr=0.01, momentum=0.5, centered=True),
    "NAdam": lambda p: optim.NAdam(p),
    "Adafactor": lambda p: optim.Adafactor(p),
    "Muon": lambda p: optim.Muon([q for q in p if q.dim() == 2]),
}
WAYS = [{}, {"bucket_bytes": 900}, {"bucket_bytes": 900, "shard_gradients": True}, {"split": "parameters"}]


def network():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(13, 37), nn.Tanh(), nn.Linear(37, 41), nn.Tanh(), nn.Linear(41, 3))


def learn(model, optimizer, steps=4):
    for step in range(steps):
        x = torch.randn(8, 13, generator=torch.Generator().manual_seed(100 * step + RANK))
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()


def bytes_of(optimizer):
    tensors = [t for state in optimizer.state.values() for t in state.values() if isinstance(t, torch.Tensor)]
    return sum(t.numel() * t.element_size() for t in tensors)


def same_on_every_rank(what, *tensors):
    texts = [t.detach().flatten().contiguous().view(torch.uint8).numpy().tobytes().hex() for t in tensors]
    check_agreement(comm, what, [(f"tensor {i}", text) for i, text in enumerate(texts)])


@case
def equal_to_unsharded():
    """Bit for bit over shared memory, where both sum in rank order. Over MPI the order differs: within 2e-5."""
    for name, make in MAKERS.items():
        expected = network()
        learn(expected, DistributedOptimizer(make(expected.parameters())))
        for way in WAYS if name == "AdamW" else WAYS[1:3]:
            model = network()
            optimizer = ShardedOptimizer(make(model.parameters()), **way)
            learn(model, optimizer)
            same_on_every_rank(name, *model.parameters())
            for p, q in zip(model.parameters(), expected.parameters(), strict=True):
                if comm.transport == "mpi" and SIZE > 2:
                    assert (p - q).abs().max() <= 2e-5 * q.abs().max(), (name, way)
                else:
                    assert torch.equal(p, q), (name, way, (p - q).abs().max())
            optimizer.close()


@case
def memory_falls_with_ranks():
    """State of a rank: 1/ranks of the whole, and at most a line (128 bytes) of each tensor and bucket more."""
    model = nn.Sequential(nn.Linear(300, 200), nn.Linear(200, 10))
    loss = lambda m: sum(p.sum() for p in m.parameters())  # noqa: E731
    count = sum(p.numel() for p in model.parameters())
    for ranks in {1, 2, SIZE}:
        part = comm.split(RANK // ranks if ranks == 1 or SIZE % ranks == 0 else 0)
        for name, tensors in (("SGD with momentum", 1), ("AdamW", 2)):
            reference = copy.deepcopy(model)
            plain = MAKERS[name](reference.parameters())
            loss(reference).backward()
            plain.step()
            for way in WAYS[:3]:
                optimizer = ShardedOptimizer(MAKERS[name](model.parameters()), comm=part, **way)
                loss(model).backward()
                optimizer.step()
                buckets = len(optimizer._buckets)
                most = bytes_of(plain) / part.size + 128 * tensors * buckets
                assert bytes_of(optimizer) <= most, (name, way, part.size, bytes_of(optimizer), most)
                total = int(part.allgather(torch.tensor([bytes_of(optimizer)])).sum())
                assert 4 * count * tensors <= total <= bytes_of(plain) + 4 * 4 * part.size, (name, total)
                if way.get("shard_gradients"):
                    means = sum(bucket._means.untyped_storage().nbytes() for bucket in optimizer._buckets)
                    assert means <= 4 * count / part.size + 128 * 5 * buckets
                optimizer.close()
        part.close()


def pieces(optimizer):
    return [piece for own in optimizer._pieces for piece in own]


@case
def whole_parameters_are_balanced():
    sizes = [40, 1000, 990, 30, 20, 980, 10, 5]
    model = nn.ParameterList([nn.Parameter(torch.ones(n)) for n in sizes])
    for bucket_bytes in (2000, 1 << 20):
        optimizer = ShardedOptimizer(adam(model), bucket_bytes=bucket_bytes, split="parameters")
        sum(p.sum() for p in model).backward()
        optimizer.step()
        owned = [len(piece.own) for piece in pieces(optimizer)]
        assert all(n in sizes for n in owned)
        loads = [int(n) for n in comm.allgather(torch.tensor([sum(owned)]))]
        assert sum(loads) == sum(sizes)
        assert max(loads) - min(loads) <= max(sizes), loads
        optimizer.close()
    few = nn.ParameterList([nn.Parameter(torch.ones(3, 3))])  # some ranks have nothing
    optimizer = ShardedOptimizer(optim.Adafactor(few.parameters()))
    for _ in range(2):
        optimizer.zero_grad()
        few[0].square().sum().backward()
        norm = optimizer.clip_grad_norm_(1.0)
        optimizer.step()
    same_on_every_rank("parameters", few[0], norm)


@case
def gradients_leave_and_come_whole():
    mine, optimizer, reference, plain = twins(sharded)
    for step in range(4):
        optimizer.zero_grad()
        mine.loss(step).backward()
        assert all(p.grad is None for p in mine.parameters()), "on their way"
        optimizer.synchronize()
        plain.zero_grad()
        reference.joined(step).backward()
        for p, q in zip(mine.parameters(), reference.parameters(), strict=True):
            assert torch.equal(p.grad, q.grad)
            if step % 2:  # replaced, not changed in place; or taken away
                p.grad, q.grad = p.grad * 0.5, q.grad * 0.5
        mine.p[3].grad = reference.p[3].grad = None
        if step == 2:  # a further pass adds to the averages
            mine.loss(9).backward()
            reference.joined(9).backward()
        optimizer.step()
        plain.step()
        assert all(p.grad is None for p in mine.parameters())
    assert_equal(mine, reference)
    _, optimizer, _, _ = twins(sharded_throughout)
    raises(pycoll.InvalidArgument, "no rank has whole gradients", optimizer.synchronize)


@case
def clipping():
    for kind in (sharded, sharded_throughout):
        for order in (2.0, 1.0, float("inf")):
            mine, optimizer, reference, plain = twins(kind)
            for step in range(3):
                optimizer.zero_grad()
                mine.loss(step, only=(0, 1, 2)).backward()
                norm = optimizer.clip_grad_norm_(2.0, order)
                raises(pycoll.Error, "backward() between clip_grad_norm_()", lambda m=mine: m.loss(0).backward())
                for p in mine.parameters():
                    p.grad = None  # of the pass that was refused
                optimizer.step()
                plain.zero_grad()
                reference.joined(step, only=(0, 1, 2)).backward()
                wanted = torch.nn.utils.clip_grad_norm_(reference.parameters(), 2.0, order)
                plain.step()
                assert norm.dtype == wanted.dtype and abs(norm - wanted) <= 1e-6 * wanted, (norm, wanted)
                same_on_every_rank("norm", norm)
            for p, q in zip(mine.parameters(), reference.parameters(), strict=True):
                assert (p - q).abs().max() <= 1e-5 * q.abs().max()
            mine.p[0].grad = torch.full_like(mine.p[0], float("nan"))
            raises(RuntimeError, "norm of order", lambda o=optimizer, n=order: o.clip_grad_norm_(1.0, n, True))
            optimizer.close()


@case
def state_comes_and_goes():
    """To an optimizer without pycoll and back; and as each rank's own."""
    for name in ("SGD with momentum", "Adam", "Adafactor"):
        make = MAKERS[name]
        mine, optimizer, reference, plain = twins(sharded, make)
        train(optimizer, mine.loss, range(3))
        train(plain, reference.joined, range(3))
        full = [optimizer.full_state_dict(root) for root in range(SIZE)][RANK]
        wanted = copy.deepcopy(plain.state_dict())
        assert full["param_groups"] == wanted["param_groups"]
        assert full["state"].keys() == wanted["state"].keys()
        for i, state in wanted["state"].items():
            for key, value in state.items():
                assert torch.equal(torch.as_tensor(full["state"][i][key]), torch.as_tensor(value)), (name, i, key)
        assert optimizer.full_state_dict(SIZE - 1) is None or RANK == SIZE - 1

        own = copy.deepcopy(optimizer.state_dict())
        weights = copy.deepcopy(mine.state_dict())
        everyone = gather_objects(comm, own, 0)
        train(plain, reference.joined, range(3, 5))
        for saved in (own, full, wanted, *([everyone] if RANK == 0 else [own])):
            again = Given()
            again.load_state_dict(weights)
            resumed = sharded(make(again.parameters()), again.named_parameters())
            resumed.load_state_dict(copy.deepcopy(saved))
            assert resumed.state_dict()["shards"].keys() == own["shards"].keys()
            train(resumed, again.loss, range(3, 5))
            assert_equal(again, reference)
            resumed.close()
        alone = Given()
        alone.load_state_dict(weights)
        plain = make(alone.parameters())
        plain.load_state_dict(full)
        train(plain, alone.joined, range(3, 5))
        assert_equal(alone, reference)
        optimizer.close()
        raises(KeyError, "state", lambda m=make, o=own: m(Given().parameters()).load_state_dict(o))


@case
def state_of_other_numbers_of_ranks():
    """Saved by some of the ranks, loaded by all; saved by all, loaded by some; other buckets, and the other split."""
    fewer = comm.split(0 if 2 * RANK < SIZE else 1)
    for saver, loader in ((comm, fewer), (fewer, comm)):
        for split in ("elements", "parameters"):
            mine, reference = Given(), Given()
            kwargs = {"comm": saver, "split": split, "bucket_bytes": 500}
            optimizer = ShardedOptimizer(adam(mine.parameters()), mine.named_parameters(), **kwargs)
            plain = adam(reference.parameters())
            train(optimizer, mine.joined, range(2))
            train(plain, reference.joined, range(2))
            own = copy.deepcopy(optimizer.state_dict())
            saved = gather_objects(saver, own, 0)
            states = saved if saver.rank == 0 else None
            states = pycoll.replicate.broadcast_object(saver, states, 0)
            again = Given()
            again.load_state_dict(mine.state_dict())
            resumed = ShardedOptimizer(adam(again.parameters()), comm=loader, bucket_bytes=300)
            if saver.size > 1:
                raises(
                    pycoll.InvalidArgument, "pass a list of all ranks'", lambda r=resumed, o=own: r.load_state_dict(o)
                )
            resumed.load_state_dict(states)
            train(resumed, again.joined, range(2, 4))
            train(plain, reference.joined, range(2, 4))
            assert_equal(again, reference)
            optimizer.close()
            resumed.close()
    fewer.close()


@case
def states_that_do_not_fit():
    mine, optimizer, _, _ = twins(sharded)
    train(optimizer, mine.loss, range(1))
    other = sgd([{"params": [mine.p[0]]}, {"params": [mine.p[1]]}]).state_dict()
    raises(
        pycoll.InvalidArgument, "got groups of [1, 1] parameters, wanted [4]", lambda: optimizer.load_state_dict(other)
    )
    if SIZE > 1:
        own = optimizer.state_dict()
        text = f"rank {RANK} of {SIZE} got the state of rank {(RANK + 1) % SIZE} of {SIZE}"
        wrong = {**own, "rank": (RANK + 1) % SIZE}
        raises(pycoll.InvalidArgument, text, lambda: optimizer.load_state_dict(wrong))
        raises(pycoll.InvalidArgument, "in rank order", lambda: optimizer.load_state_dict([own] * (SIZE + 1)))


@case
def kinds_of_parameters():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
            self.transposed = nn.Parameter(integers((30, 50), 1).T)
            self.strided = nn.Parameter(integers((4, 60), 2)[:, ::2])
            self.scalar = nn.Parameter(torch.zeros(()))
            self.nothing = nn.Parameter(torch.zeros(0, 3))
            self.float16 = nn.Parameter(torch.zeros(50, dtype=torch.float16))
            self.bfloat16_ = nn.Parameter(torch.zeros(50, dtype=torch.bfloat16))
            self.float64 = nn.Parameter(torch.zeros(50, dtype=torch.float64))
            self.complex64 = nn.Parameter(torch.zeros(50, dtype=torch.complex64))
            with torch.no_grad():
                self.conv.weight.copy_(integers((4, 3, 3, 3), 3))
                self.conv.bias.zero_()

        def loss(self, rank=RANK):
            numbered = enumerate(self.parameters())
            return sum((p * integers(p.shape, rank, i).to(p.dtype) * SIZE).real.sum() for i, p in numbered)

    for kind in (sharded, sharded_throughout):
        mine, optimizer, reference, plain = twins(kind, sgd, Mixed)
        strides = {name: p.stride() for name, p in mine.named_parameters()}
        for _ in range(3):
            train(optimizer, lambda _, m=mine: m.loss(), [0])
            plain.zero_grad()
            for rank in range(SIZE):
                (reference.loss(rank) / SIZE).backward()
            plain.step()
        assert_equal(mine, reference)
        assert mine.conv.weight.stride() == reference.conv.weight.stride() == strides["conv.weight"]
        full = optimizer.full_state_dict()
        if RANK == 0:
            for i, state in plain.state_dict()["state"].items():
                assert torch.equal(full["state"][i]["momentum_buffer"], state["momentum_buffer"]), i
        optimizer.close()


@case
def parameters_that_move_come_home():
    mine, optimizer, reference, plain = twins(sharded)
    train(optimizer, mine.loss, range(1))
    train(plain, reference.joined, range(1))
    for model in (mine, reference):
        model.p[0].data = model.p[0].data * 2
    train(optimizer, mine.loss, range(1, 4))
    train(plain, reference.joined, range(1, 4))
    assert_equal(mine, reference)
    mine.p[0].data = mine.p[0].data.double()
    mine.loss(0, only=(1,)).backward()
    raises(pycoll.Error, "'p.0' has changed its type or shape", optimizer.step)


@case
def autograd_sees_the_step():
    """As after any optimizer's step, a graph that needs the old values refuses."""
    model = nn.Linear(3, 3, bias=False)
    optimizer = ShardedOptimizer(sgd(model.parameters()))
    x = torch.ones(2, 3, requires_grad=True)
    loss = model(x).sum()
    loss.backward(retain_graph=True)
    optimizer.step()
    raises(RuntimeError, "modified by an inplace operation", loss.backward)


@case
def overlaps():
    """Buckets leave while the backward pass goes on."""
    for kind in (ShardedOptimizer, functools.partial(ShardedOptimizer, shard_gradients=True)):
        model = nn.Sequential(*[nn.Linear(8, 8) for _ in range(6)])
        optimizer = kind(sgd(model.parameters()), bucket_bytes=1)
        launched = []
        handle = model[0].weight.register_hook(lambda _, o=optimizer, to=launched: to.append(o._launched))
        model(torch.ones(2, 8)).sum().backward()
        handle.remove()
        assert launched[0] >= 8, launched
        optimizer.step()
        optimizer.close()


@case
def closures_are_evaluated_once():
    class Twice(optim.SGD):
        def step(self, closure=None):
            closure()
            closure()

    model = Given()
    optimizer = ShardedOptimizer(Twice(model.parameters(), lr=0.1))

    def closure():
        loss = model.loss(0)
        loss.backward()
        return loss

    raises(pycoll.Error, "Twice evaluates its closure twice", lambda: optimizer.step(closure))
    optimizer.close()
    raises(pycoll.InvalidArgument, "LBFGS looks at all", lambda: ShardedOptimizer(optim.LBFGS(model.parameters())))


@case
def ends_and_is_forgotten():
    model = Given()
    optimizer = sharded(sgd(model.parameters()), model.named_parameters())
    train(optimizer, model.loss, range(1))
    raises(pycoll.InvalidArgument, "belongs to another ShardedOptimizer", lambda: sharded(sgd(model.parameters())))
    values = [p.detach().clone() for p in model.parameters()]
    optimizer.close()
    optimizer.close()
    raises(pycoll.Error, "ShardedOptimizer was closed", optimizer.step)
    raises(pycoll.Error, "ShardedOptimizer was closed", optimizer.full_state_dict)
    assert all(torch.equal(p, v) for p, v in zip(model.parameters(), values, strict=True))
    assert model.p[1].untyped_storage().nbytes() == 33 * 4, "memory of its own"
    again = weakref.ref(sharded(sgd(model.parameters())))
    assert again() is None, "nothing holds an optimizer that nobody has"
    sharded(sgd(model.parameters())).close()


if __name__ == "__main__":
    main(sys.argv[1:])
