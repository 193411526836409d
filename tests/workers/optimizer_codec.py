"""DistributedOptimizer with a codec, over ranks; see test_optim_codec.py. optimizer_codec.py CASE..."""

from __future__ import annotations

import io
import pickle
import sys

import numpy as np
import torch
from cases import RANK, SIZE, case, comm, main, raises
from torch import nn

import pycoll
from pycoll import Compression, DistributedOptimizer, Warmup
from pycoll.codec import Cast, Identity, Int8, RandomK, SharedScale, Sign, TopK, parse

torch.set_num_threads(1)
NAN = float("nan")
EXACT_TOPK = TopK(0.02, exact=True)
SHAPES = {"first": (64, 32), "bias": (2000,), "small": (5, 3), "second": (40, 50), "scale": ()}
COMPRESSED = {"first", "second"}


class Given(nn.Module):
    """Parameters whose gradients are given: two matrices that are compressed, and three parameters that stay dense."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        for name, shape in SHAPES.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape, dtype=dtype)))

    def loss(self, step, rank, only=None, of=None):
        gradients = (of or normal)(step, rank)
        return sum(
            (p * gradients[n].to(p.dtype)).sum() for n, p in self.named_parameters() if only is None or n in only
        )


def normal(step, rank):
    random = np.random.default_rng([step, rank])
    return {n: torch.from_numpy(np.asarray(random.standard_normal(s, np.float32))) for n, s in SHAPES.items()}


def integers(step, rank):
    """Small multiples of the number of ranks: sums and means are exact in any order."""
    random = np.random.default_rng([step, rank])
    return {
        n: torch.from_numpy(np.asarray(random.integers(-3, 4, s) * float(SIZE), np.float32)) for n, s in SHAPES.items()
    }


def mean_loss(model, step, of=integers, **only):
    """What one process would minimise."""
    return sum(model.loss(step, rank, of=of, **only) for rank in range(SIZE)) / SIZE


def build(codec, *, model=None, lr=0.5, on=comm, **kwargs):
    model = model or Given()
    inner = torch.optim.SGD(model.parameters(), lr=lr)
    return model, DistributedOptimizer(inner, model.named_parameters(), comm=on, codec=codec, **kwargs)


def run(model, optimizer, steps, rank=RANK, of=normal):
    for step in steps:
        optimizer.zero_grad()
        model.loss(step, rank, of=of).backward()
        optimizer.step()


def plainly(steps, momentum=0.0, lr=0.5, of=integers):
    """The same by one process."""
    model = Given()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)
    for step in steps:
        optimizer.zero_grad()
        mean_loss(model, step, of).backward()
        optimizer.step()
    return model


def assert_equal(model, reference, what=""):
    for (name, p), q in zip(model.named_parameters(), reference.parameters(), strict=True):
        assert torch.equal(p, q), f"{what}: {name}: worst {(p - q).abs().max()}"


def everyones(x):
    """Any object of every rank."""
    data = np.frombuffer(pickle.dumps(x), np.uint8).copy()
    counts = comm.allgather(np.array([data.size])).tolist()
    out = np.empty(sum(counts), np.uint8)
    comm.allgather(data, out, counts=counts)
    ends = np.cumsum(counts)
    return [pickle.loads(out[end - n : end].tobytes()) for end, n in zip(ends, counts, strict=True)]


def ranks_agree(model, what=""):
    every = everyones([p.detach().flatten().view(torch.uint8).numpy().tobytes() for p in model.parameters()])
    assert all(one == every[0] for one in every), f"{what}: ranks have different parameters"


def residuals(optimizer):
    return optimizer.state_dict()["pycoll"]["residuals"]


def totals(states, key="residuals"):
    """Sum over ranks, by parameter name."""
    return {n: sum(state["pycoll"][key][n].double() for state in states) for n in states[0]["pycoll"][key]}


@case
def trains_with_every_codec():
    for codec in (
        "f32",
        "bf16",
        "int8",
        "int4",
        "fp8",
        "sign",
        "shared",
        "topk:0.02",
        "topk:0.05+int8",
        "randomk:0.05",
        "powersgd:2",
    ):
        model, optimizer = build(parse(codec))
        run(model, optimizer, range(3))
        ranks_agree(model, codec)
        assert all(torch.isfinite(p).all() for p in model.parameters())
        optimizer.close()


@case
def identity_is_dense():
    for options in (
        {},
        {"everywhere": True},
        {"residual": "bf16"},
        {"feedback": False},
        {"dense_below": 0, "dense_vectors": False},
    ):
        model, optimizer = build(Compression(Identity(), **options))
        run(model, optimizer, range(3), of=integers)
        assert_equal(model, plainly(range(3)), options)


@case
def small_parameters_stay_dense():
    model, optimizer = build(EXACT_TOPK)
    run(model, optimizer, range(3), of=integers)
    reference = plainly(range(3))
    for name in set(SHAPES) - COMPRESSED:
        assert torch.equal(getattr(model, name), getattr(reference, name)), name
    for name in COMPRESSED:
        assert not torch.equal(getattr(model, name), getattr(reference, name)), name
    for options, wanted in (
        ({}, COMPRESSED),
        ({"dense_below": 8001}, {"first"}),
        ({"dense_below": 8192}, {"first"}),
        ({"dense_below": 8193}, set()),
        ({"dense_below": 0}, {"first", "second", "small"}),
        ({"dense_vectors": False}, {"first", "second", "bias"}),
        ({"dense_below": 0, "dense_vectors": False}, set(SHAPES)),
    ):
        optimizer.close()
        model, optimizer = build(Compression(EXACT_TOPK, **options))
        assert set(residuals(optimizer)) == wanted, options
        assert {n for bucket in optimizer.stats()["buckets"] for n in bucket["parameters"]} == wanted, options


@case
def residuals_are_of_parameters():
    """Not of buckets: others may follow after a checkpoint."""
    model, optimizer = build(EXACT_TOPK)
    run(model, optimizer, range(3))
    saved = optimizer.state_dict()
    assert set(residuals(optimizer)) == COMPRESSED
    for name, residual in residuals(optimizer).items():
        assert residual.shape == SHAPES[name] and residual.any()
    _, other = build(EXACT_TOPK, bucket_bytes=1)
    other.load_state_dict(saved)
    assert len(other.stats()["buckets"]) == 2 and len(optimizer.stats()["buckets"]) == 1
    for name, residual in residuals(other).items():
        assert torch.equal(residual, saved["pycoll"]["residuals"][name]), name


@case
def what_is_not_sent_is_kept():
    for codec in (EXACT_TOPK, Int8(), Sign(), RandomK(0.1), pycoll.PowerSGD(1)):
        model, optimizer = build(codec, lr=1)
        run(model, optimizer, range(4))
        kept = totals(everyones(optimizer.state_dict()))
        for name in COMPRESSED:
            gone_in = sum(normal(step, rank)[name].double() for step in range(4) for rank in range(SIZE))
            lost = (-getattr(model, name).detach().double() * SIZE + kept[name] - gone_in).abs().max()
            # 4 steps of at most 2P + 4 roundings of numbers below 8P each; PowerSGD's products have 64 terms
            bound = 4 * (2 * SIZE + 4) * 8 * SIZE * 2**-24 * (64 if isinstance(codec, pycoll.PowerSGD) else 1)
            assert lost <= bound, f"{codec}: {name}: {lost}, at most {bound}"


@case
def resumes_to_the_bit():
    hows = [
        *(Compression(codec) for codec in (EXACT_TOPK, Int8(), Cast(), Sign(), RandomK(0.1), SharedScale())),
        Compression(Int8(rounding="stochastic")),
        Compression(EXACT_TOPK, residual="bf16"),
        Compression(EXACT_TOPK, momentum=0.5),
        Compression(TopK(Warmup(0.01, 2), exact=True), clip_norm=1.0),
    ]
    for how in hows:
        model, optimizer = build(how)
        run(model, optimizer, range(3))
        file = io.BytesIO()
        torch.save((model.state_dict(), optimizer.state_dict()), file)
        run(model, optimizer, range(3, 6))
        weights, state = torch.load(io.BytesIO(file.getvalue()))
        again, resumed = build(how)
        again.load_state_dict(weights)
        resumed.load_state_dict(state)
        run(again, resumed, range(3, 6))
        assert_equal(again, model, how)
        ranks_agree(again, how)


@case
def resumes_what_waits_for_no_gradient():
    """A parameter that has a residual and no gradient any more."""
    model, optimizer = build(EXACT_TOPK)
    run(model, optimizer, range(2))
    weights, state = {n: p.clone() for n, p in model.state_dict().items()}, optimizer.state_dict()
    again, resumed = build(EXACT_TOPK)
    again.load_state_dict(weights)
    resumed.load_state_dict(state)
    for m, o in ((model, optimizer), (again, resumed)):
        for step in range(2, 5):
            o.zero_grad()
            m.loss(step, RANK, only={"second"}).backward()
            o.step()
    assert_equal(again, model)


@case
def a_checkpoint_on_rank_0_only():
    how = Compression(RandomK(0.1), momentum=0.5)
    model, optimizer = build(how)
    run(model, optimizer, range(3))
    again, resumed = build(how)
    if RANK == 0:
        again.load_state_dict(model.state_dict())
        resumed.load_state_dict(optimizer.state_dict())
    resumed.broadcast_state()
    run(again, resumed, range(3, 6))
    ranks_agree(again)
    dense = torch.optim.SGD(Given().parameters(), lr=0.1)
    dense.load_state_dict(optimizer.state_dict())  # loads without pycoll too
    resumed.load_state_dict(dense.state_dict())  # and without residuals
    assert not any(r.any() for r in residuals(resumed).values())


@case
def the_number_of_ranks_changes():
    if SIZE != 3:
        return
    fewer = comm.split(0 if RANK < 2 else None)
    model, optimizer = build(EXACT_TOPK)
    run(model, optimizer, range(3))
    states = everyones(optimizer.state_dict())
    before = totals(states)
    if fewer:
        model, optimizer = build(EXACT_TOPK, on=fewer)
        optimizer.load_state_dict(states)
        run_on = residuals(optimizer)
        for name, residual in run_on.items():
            mine = [state["pycoll"]["residuals"][name] for state in states if state["pycoll"]["rank"] % 2 == RANK]
            assert torch.equal(residual, sum(mine)), name
        run(model, optimizer, range(3))
    states = everyones(optimizer.state_dict() if fewer else None)[:2]
    after = totals(states)
    model, optimizer = build(EXACT_TOPK)
    optimizer.load_state_dict(states)
    grown = totals(everyones(optimizer.state_dict()))
    for name in COMPRESSED:
        assert torch.equal(grown[name], after[name]), f"2 to 3 ranks: {name}"
        assert before[name].any()
        assert RANK < 2 or not residuals(optimizer)[name].any()
    run(model, optimizer, range(3))
    ranks_agree(model)


@case
def clips_after():
    """As one process clips the mean."""
    model, optimizer = build(Compression(Identity(), clip_norm=2.0, clip="after"))
    alone = Given()
    plain = torch.optim.SGD(alone.parameters(), lr=0.5)
    for step in range(3):
        optimizer.zero_grad()
        model.loss(step, RANK, of=integers).backward()
        optimizer.synchronize()
        optimizer.step()
        plain.zero_grad()
        mean_loss(alone, step).backward()
        assert torch.nn.utils.clip_grad_norm_(alone.parameters(), 2.0) > 2
        plain.step()
    assert_equal(model, alone)


@case
def clips_before():
    """Each rank's gradient by its own norm; then the mean of those."""
    mean, clipped_mean = Given(), {n: torch.zeros(s).double() for n, s in SHAPES.items()}

    def share(step, rank):  # ranks with very different norms
        return {n: g * 10.0**rank for n, g in normal(step, rank).items()}

    for rank in range(SIZE):
        mean.zero_grad()
        mean.loss(0, rank, of=share).backward()
        torch.nn.utils.clip_grad_norm_(mean.parameters(), 2.0)
        for name, p in mean.named_parameters():
            clipped_mean[name] += p.grad.double() / SIZE
    updates = {}
    for clip in ("before", "after"):
        model, optimizer = build(Compression(Identity(), clip_norm=2.0, clip=clip), lr=1)
        run(model, optimizer, [0], of=share)
        ranks_agree(model)
        updates[clip] = {n: -p.detach().double() for n, p in model.named_parameters()}
    for name, wanted in clipped_mean.items():
        # The norm is the same to the bit; P sums and a division round.
        bound = (SIZE + 1) * 2**-24 * 2
        assert (updates["before"][name] - wanted).abs().max() <= bound, name
        if SIZE > 1:
            assert (updates["after"][name] - wanted).abs().max() > 100 * bound, "the order makes no difference here"


@case
def order_of_clipping_and_feedback():
    """Before: what the residuals hold was clipped. After: what is stepped with is clipped, residuals are not."""
    for clip in ("before", "after"):
        model, optimizer = build(Compression(EXACT_TOPK, clip_norm=0.5, clip=clip))
        optimizer.zero_grad()
        model.loss(0, RANK).backward()
        optimizer.synchronize()
        grads = {n: p.grad.double() for n, p in model.named_parameters()}
        norm = torch.stack([g.norm() for g in grads.values()]).norm()
        kept = totals(everyones(optimizer.state_dict()))
        whole = {n: sum(normal(0, rank)[n].double() for rank in range(SIZE)) for n in COMPRESSED}
        if clip == "after":
            assert abs(norm - 0.5) < 1e-5
            sent = {n: grads[n] != 0 for n in kept}
            assert all(torch.allclose(kept[n][~sent[n]], whole[n][~sent[n]], atol=1e-5) for n in kept)
        else:
            assert norm < 0.5 / 1.5
            together = torch.stack([(kept[n] + grads[n] * SIZE).norm() for n in kept]).norm()
            assert together <= 0.5 * SIZE


@case
def momentum_is_that_of_sgd():
    """Velocities are sent instead of gradients, and the mean of velocities is the velocity of the mean."""
    for options in ({}, {"dense_below": 0, "dense_vectors": False}, {"dense_below": 1 << 30}):
        model, optimizer = build(Compression(Identity(), momentum=0.5, **options))
        run(model, optimizer, range(4), of=integers)
        assert_equal(model, plainly(range(4), momentum=0.5), options)
        optimizer.close()
    model = Given()
    inner = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    text = "has momentum 0.9, and so has the Compression"
    raises(pycoll.InvalidArgument, text, lambda: DistributedOptimizer(inner, codec=Compression(Int8(), momentum=0.9)))


@case
def masking_clears_what_was_sent():
    def alike(step, rank):  # the same on all ranks: all select the same
        return normal(step, 0)

    for masking in (True, False):
        model, optimizer = build(Compression(EXACT_TOPK, momentum=0.5, masking=masking))
        run(model, optimizer, [0], of=alike)
        state = optimizer.state_dict()["pycoll"]
        seen = 0
        for name in COMPRESSED:
            velocity, gradient = state["velocities"][name], normal(0, 0)[name]
            sent = getattr(model, name) != 0
            seen += int(sent.sum())
            assert torch.equal(velocity[~sent & (velocity != 0)], gradient[~sent & (velocity != 0)])
            assert torch.equal(velocity[sent], torch.zeros_like(velocity[sent]) if masking else gradient[sent])
            assert int((velocity == 0).sum()) <= (round(0.02 * 4048) if masking else 0)
        assert seen > 0.015 * 4048


@case
def warmup_is_followed():
    schedule = Warmup(0.02, 2, (0.5, 0.1))
    model, optimizer = build(TopK(schedule, exact=True))
    for step in range(6):
        run(model, optimizer, [step])
        [bucket] = optimizer.stats()["buckets"]
        assert 0.75 * schedule.at(step) <= bucket["density"] <= schedule.at(step) + SIZE / bucket["elements"], (
            step,
            bucket,
        )


@case
def stats_of_buckets():
    model, optimizer = build(Int8(), bucket_bytes=1)
    before = optimizer.stats()
    assert [bucket["wire_bytes"] for bucket in before["buckets"]] == [0, 0]
    run(model, optimizer, range(2))
    stats = optimizer.stats()
    assert [bucket["parameters"] for bucket in stats["buckets"]] == [["second"], ["first"]]
    kept = residuals(optimizer)
    for bucket in stats["buckets"]:
        [name] = bucket["parameters"]
        assert bucket["elements"] == np.prod(SHAPES[name]) and bucket["density"] == 1
        assert (
            np.isclose(bucket["residual_norm"], kept[name].double().norm(), rtol=1e-6) and bucket["residual_norm"] > 0
        )
        # headers, scales and codes; less than a quarter of float32 of both halves
        assert (SIZE == 1) == (bucket["wire_bytes"] == 0)
        assert bucket["wire_bytes"] <= 1.1 * bucket["elements"] * 2 + 64 * SIZE
        assert all(bucket[f"{part}_seconds"] >= 0 for part in ("encode", "wire", "decode"))
    assert "buckets" not in build(None)[1].stats()


@case
def gradients_that_are_missing():
    """On one rank, on all of them, and in some steps: as in one process."""
    only = [
        {"first", "bias"} if RANK == 0 else {"second", "bias"},
        {"bias"},
        None,
        {"second"},
    ]
    every = everyones([set(SHAPES) if names is None else names for names in only])
    for bucket_bytes in (1, 25 << 20):
        model, optimizer = build(Identity(), bucket_bytes=bucket_bytes)
        alone = Given()
        plain = torch.optim.SGD(alone.parameters(), lr=0.5)
        for step, names in enumerate(only):
            optimizer.zero_grad()
            model.loss(step, RANK, only=names, of=integers).backward()
            optimizer.step()
            if step == 1:
                assert model.small.grad is None
            plain.zero_grad()
            loss = sum(alone.loss(step, rank, only=every[rank][step], of=integers) for rank in range(SIZE)) / SIZE
            loss.backward()
            plain.step()
        assert_equal(model, alone, bucket_bytes)
    # Never any: no gradient, and no step.
    model, optimizer = build(EXACT_TOPK)
    run_only = {"second", "bias"}
    model.loss(0, RANK, only=run_only).backward()
    optimizer.step()
    assert model.first.grad is None and model.small.grad is None and model.second.grad is not None
    # No more: what is left of it goes on its way.
    model, optimizer = build(TopK(0.25, exact=True), lr=1)
    for step in range(12):
        optimizer.zero_grad()
        model.loss(step, RANK, only=None if step == 0 else {"bias"}).backward()
        optimizer.step()
    for name, left in totals(everyones(optimizer.state_dict())).items():
        wanted = sum(normal(0, rank)[name].double() for rank in range(SIZE)) / SIZE
        assert not left.any() and (getattr(model, name).detach() + wanted).abs().max() < 1e-5, name


@case
def accumulation():
    model, optimizer = build(Identity())
    alone = Given()
    plain = torch.optim.SGD(alone.parameters(), lr=0.5)
    for step in range(3):
        optimizer.zero_grad(set_to_none=step == 1)
        plain.zero_grad()
        with optimizer.no_sync():
            model.loss(3 * step, RANK, of=integers).backward()
            model.loss(3 * step + 1, RANK, only={"first"}, of=integers).backward()
        if step < 2:
            model.loss(3 * step + 2, RANK, of=integers).backward()
        optimizer.step()
        mean_loss(alone, 3 * step).backward()
        mean_loss(alone, 3 * step + 1, only={"first"}).backward()
        if step < 2:
            mean_loss(alone, 3 * step + 2).backward()
        plain.step()
    assert_equal(model, alone)


@case
def frozen_parameters():
    model = Given()
    model.second.requires_grad_(False)
    with torch.no_grad():
        model.second.fill_(RANK)
    inner = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    optimizer = DistributedOptimizer(inner, model.named_parameters(), codec=Identity())
    run(model, optimizer, range(2), of=integers)
    assert not model.second.any(), "rank 0's"
    assert set(residuals(optimizer)) == {"first"}
    assert torch.equal(model.first, plainly(range(2)).first)


@case
def half_precision():
    for dtype in (torch.bfloat16, torch.float16):
        model, optimizer = build(Compression(EXACT_TOPK, dense_below=0), model=Given(dtype))
        run(model, optimizer, range(3))
        ranks_agree(model, dtype)
        assert all(r.dtype == torch.float32 and r.any() for r in residuals(optimizer).values())


@case
def no_number_is_swallowed():
    def poisoned(step, rank):
        gradients = normal(step, rank)
        if rank == SIZE - 1:
            gradients["first"][3, 5] = NAN
        return gradients

    for codec in (EXACT_TOPK, Int8(), RandomK(0.1), pycoll.PowerSGD(2)):
        model, optimizer = build(Compression(codec, momentum=0.5))
        run(model, optimizer, [0])
        optimizer.zero_grad()
        model.loss(1, RANK, of=poisoned).backward()
        optimizer.synchronize()
        assert any(p.grad.isnan().any() for p in model.parameters()), f"{codec}: rank {RANK} saw no NaN"
        state = optimizer.state_dict()["pycoll"]
        for kept in (*state["residuals"].values(), *state["velocities"].values()):
            assert torch.isfinite(kept).all(), f"{codec}: it would be sent again and again"
        run(model, optimizer, [2])  # as if the bad step had been skipped
        assert all(torch.isfinite(p).all() for p in model.parameters()), codec


@case
def different_codecs_raise():
    if SIZE > 1:
        raises(pycoll.MismatchError, "codec is ", lambda: build(Int8() if RANK else None))
        raises(pycoll.MismatchError, "codec is ", lambda: build(Compression(Int8(), feedback=bool(RANK))))


class Valley(nn.Module):
    """Half the squared distance from a target, and on each of two ranks a slope that the other one cancels.

    On the slope are as many elements as are sent, and it is steep: without feedback nothing else is ever sent.
    """

    def __init__(self):
        super().__init__()
        self.x = nn.Parameter(torch.zeros(64, 64))
        random = np.random.default_rng(1)
        self.target = torch.from_numpy(random.standard_normal((64, 64)).astype(np.float32))
        slope = torch.zeros(4096)
        slope[torch.from_numpy(random.choice(4096, 41, replace=False))] = 20
        self.slope = slope.view(64, 64) * (-1) ** RANK

    def forward(self):
        return 0.5 * (self.x - self.target).square().sum() + (self.x * self.slope).sum()


@case
def error_feedback_makes_up_for_what_is_lost():
    """The control: the test fails without it."""
    if SIZE != 2:
        return

    def distance(codec, steps=500):
        model = Valley()
        model, optimizer = build(codec, model=model, lr=0.005)
        for _ in range(steps):
            optimizer.zero_grad()
            model().backward()
            optimizer.step()
        ranks_agree(model)
        optimizer.close()
        return float((model.x - model.target).square().mean())

    dense = distance(None)
    for codec in (TopK(0.01), Sign()):
        kept, dropped = distance(codec), distance(Compression(codec, feedback=False))
        if RANK == 0:
            print(f"{codec}: mean squared distance {kept:.2e}, without feedback {dropped:.2e}, dense {dense:.2e}")
        assert kept <= 3 * dense, f"{codec}: {kept}, dense {dense}"
        assert dropped >= 8 * kept, f"{codec}: {dropped} without feedback, {kept} with it"


if __name__ == "__main__":
    main(sys.argv[1:])
