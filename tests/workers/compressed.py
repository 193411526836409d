"""Allreduce with a codec over real ranks; see test_compressed.py. compressed.py CASE...

RANKS_PER_NODE in the environment makes nodes of so many ranks, which then are reached over MPI as those of others are.
"""

from __future__ import annotations

import os
import sys

import numpy as np
import torch

from pycoll import bootstrap

PER_NODE = int(os.environ.get("RANKS_PER_NODE", "0"))
if PER_NODE:
    here = bootstrap.node_key()
    number = int(os.environ.get("OMPI_COMM_WORLD_RANK") or os.environ["PMI_RANK"]) // PER_NODE
    bootstrap.node_key = lambda: f"{here} {number}"  # before the ranks meet, in the next import

from cases import RANK, SIZE, case, comm, main, raises  # noqa: E402

import pycoll  # noqa: E402
from pycoll import Feedback  # noqa: E402
from pycoll.codec import (  # noqa: E402
    Cast,
    Chain,
    Fp8,
    Identity,
    Int4,
    Int8,
    RandomK,
    SharedScale,
    Sign,
    TopK,
)

F = np.float32
NAN = float("nan")
QUICK = os.environ.get("PYCOLL_TEST_QUICK") == "1"
COUNTS = [0, 1, 1000] if QUICK else [0, 1, SIZE + 1, 1000, 70001]
CODECS = {
    "identity": Identity(),
    "bf16": Cast(),
    "fp16": Cast("fp16"),
    "int8": Int8(),
    "int8 stochastic": Int8(rounding="stochastic", seed=5),
    "int4": Int4(),
    "e4m3": Fp8(),
    "e5m2": Fp8("e5m2"),
    "sign": Sign(),
    "topk": TopK(0.05),
    "topk exact": TopK(0.05, exact=True),
    "topk bf16": TopK(0.05, values="bf16"),
    "topk int8": Chain(TopK(0.05), Int8()),
    "topk int4": TopK(k=9, values="int4"),
    "topk all": TopK(1.0),
    "randomk": RandomK(0.05, seed=7),
    "shared 16": SharedScale(),
    "shared 8": SharedScale(bits=8),
    "powersgd": pycoll.PowerSGD(2),
}
ALL_IN = [Identity(), TopK(1.0), RandomK(1.0)]  # these lose nothing


def normal(rank, count, step=0):
    return np.random.default_rng([rank, count, step]).standard_normal(count).astype(F)


def gathered(x):
    """Every rank's array: [rank, ...]."""
    x = np.ascontiguousarray(x)
    return comm.allgather(x).reshape(SIZE, *x.shape)


def agree(x, what=""):
    bits = gathered(np.asarray(x).view(np.uint8) if np.asarray(x).size else np.empty(0, np.uint8))
    assert (bits == bits[0]).all(), f"{what}: ranks have different bits"


def conserved(result, residual, inputs, divisor, steps, what):
    """result * divisor + all residuals = all that went in, but for rounding: at most 2P + 4 additions a step, of
    partial sums that are at most `largest`, round by 2^-24 of them each."""
    kept = gathered(residual).astype(np.float64).sum(0)
    lost = np.abs(result * divisor + kept - inputs)
    largest = np.abs(inputs).max(initial=0) + 6 * SIZE * steps
    bound = steps * (2 * SIZE + 4) * largest * 2**-24
    assert lost.max(initial=0) <= bound, f"{what}: {lost.max()} was lost, at most {bound} may be"


@case
def every_codec_and_count():
    for name, codec in CODECS.items():
        for count in COUNTS:
            for everywhere in (False, True) if PER_NODE else (False,):
                what = f"{name}, {count} elements{', everywhere' * everywhere}"
                feedback, total, inputs = Feedback(count), np.zeros(count), np.zeros(count)
                for step in range(2):
                    x = normal(RANK, count, step)
                    inputs += gathered(x).astype(np.float64).sum(0)
                    result = comm.allreduce(x, "avg", codec=codec, feedback=feedback, step=step, everywhere=everywhere)
                    assert result is x
                    if "powersgd" not in name:  # every rank multiplies its factors: alike on like processors
                        agree(result, what)
                    total += result
                if name == "powersgd":
                    assert np.isfinite(total).all()
                conserved(total, feedback.residual, inputs, SIZE, 2, what)


@case
def element_types():
    for name, codec in CODECS.items():
        if name == "powersgd":
            continue
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            x = torch.from_numpy(normal(RANK, 1000)).to(dtype)
            wanted = comm.allreduce(x.float().clone(), "avg", codec=codec, step=3)
            got = comm.allreduce(x.clone(), "avg", codec=codec, step=3)
            assert got.dtype == dtype and torch.equal(got, wanted.to(dtype)), f"{name}, {dtype}"
            by_numpy = comm.allreduce(x.float().numpy().copy(), "avg", codec=codec, step=3)
            assert np.array_equal(by_numpy, wanted.numpy()), name


@case
def lists_outs_and_works():
    shapes = [(3,), (0,), (50, 7), (1009,), ()]
    sizes = [int(np.prod(shape)) for shape in shapes]
    flat = normal(RANK, sum(sizes))
    arrays = [part.reshape(s) for part, s in zip(np.split(flat, np.cumsum(sizes)[:-1]), shapes, strict=True)]
    for name, codec in CODECS.items():
        if name == "powersgd":
            continue  # it looks at each matrix by itself
        kept = [Feedback(flat), Feedback(arrays), Feedback(flat.size), Feedback(flat)]
        wanted = comm.allreduce(flat.copy(), codec=codec, feedback=kept[0], step=1)
        got = [array.copy() for array in arrays]
        assert comm.allreduce(got, codec=codec, feedback=kept[1], step=1) is got
        assert np.array_equal(np.concatenate([a.reshape(-1) for a in got]), wanted), name
        x, out = flat.copy(), np.empty_like(flat)
        assert comm.allreduce(x, out=out, codec=codec, feedback=kept[2], step=1) is out
        assert np.array_equal(out, wanted) and np.array_equal(x, flat), f"{name}: input changed or result differs"
        work = comm.allreduce(x, codec=codec, feedback=kept[3], step=1, wait=False)
        work.wait()
        assert work.result() is x and np.array_equal(x, wanted), name
        for feedback in kept[1:]:
            assert np.array_equal(feedback.residual, kept[0].residual), name


@case
def operators():
    x = [np.arange(300, dtype=F) * (rank + 1) for rank in range(SIZE)]  # small integers: sums are exact
    for codec in ALL_IN:
        assert np.array_equal(comm.allreduce(x[RANK].copy(), codec=codec), sum(x)), codec
        assert np.array_equal(comm.allreduce(x[RANK].copy(), "premul_sum", factor=0.5, codec=codec), sum(x) / 2)
        mean = comm.allreduce(x[RANK].copy(), "avg", codec=codec)
        assert np.abs(mean - sum(x) / SIZE).max() <= sum(x).max() / SIZE * 2**-23, codec


@case
def identity_sums_in_rank_order():
    if PER_NODE:
        return  # sums of nodes are added then
    wanted = np.zeros(1000, F)
    for rank in range(SIZE):
        wanted += normal(rank, 1000)
    assert np.array_equal(comm.allreduce(normal(RANK, 1000), codec=Identity()), wanted)


@case
def error_of_one_step():
    """Two encodings, each within its codec's bound: of what a rank sends, and of the sum."""
    inputs = np.stack([normal(rank, 4096) for rank in range(SIZE)]).astype(np.float64)
    for codec, half_step in ((Int8(), 0.5 / 127), (Int4(), 0.5 / 7), (Cast(), 2**-8)):
        # A block's largest magnitude is at most the array's; what is encoded last is the sum of what was decoded.
        sent = half_step * np.abs(inputs).max() * SIZE
        bound = (sent + half_step * (np.abs(inputs.sum(0)).max() + sent)) * (1 + 2**-14)
        got = comm.allreduce(normal(RANK, 4096), codec=codec)
        worst = np.abs(got - inputs.sum(0)).max()
        assert worst <= bound, f"{codec}: {worst}, at most {bound}"


@case
def bytes_on_the_wire():
    count = 1 << 18

    def cost(codec):
        feedback = Feedback(count)
        before = comm.stats()["wire_bytes"]
        comm.allreduce(normal(RANK, count), codec=codec, feedback=feedback)
        report = feedback.report
        assert report["wire_bytes"] <= comm.stats()["wire_bytes"] - before
        assert all(report[f"{part}_seconds"] >= 0 for part in ("encode", "wire", "decode"))
        assert 0 < report["kept"] <= count
        return gathered(np.array([report["wire_bytes"]])).sum()

    dense = cost(Identity())
    if not PER_NODE:
        assert dense >= 4 * count * 2 * (SIZE - 1)
        for codec, factor in ((Cast(), 1.99), (Int8(), 3.9), (Int4(), 7.4), (Fp8(), 3.8), (Sign(), 28)):
            assert dense / cost(codec) > factor, f"{codec}: {dense / cost(codec)}"
        assert dense / cost(TopK(0.01)) > 30
    else:
        assert cost(Int8()) < dense
    assert cost(SharedScale(8)) < dense and cost(RandomK(0.01)) < dense and cost(pycoll.PowerSGD(1)) <= dense


@case
def residuals_in_bfloat16():
    x = torch.from_numpy(normal(RANK, 1000))
    full, half = Feedback(x), Feedback(x, dtype="bf16")
    assert full.residual.dtype == torch.float32 and half.residual.dtype == torch.bfloat16
    codec = TopK(0.1, exact=True)
    first = [comm.allreduce(x.clone(), codec=codec, feedback=kept) for kept in (full, half)]
    assert torch.equal(*first) and torch.equal(full.residual.bfloat16(), half.residual)
    # The next step adds what was kept, rounded.
    wanted = comm.allreduce(x.clone(), codec=codec, feedback=Feedback(residual=half.residual.float()))
    assert torch.equal(comm.allreduce(x.clone(), codec=codec, feedback=half), wanted)


@case
def no_number_is_swallowed():
    for name, codec in CODECS.items():
        for bad in (NAN, np.inf):
            shape = (20, 50)  # a matrix, for PowerSGD
            feedback = Feedback(1000)
            x = normal(RANK, 1000).reshape(shape)
            if RANK == SIZE - 1:
                x.flat[617] = bad
            comm.allreduce(x, "avg", codec=codec, feedback=feedback)
            assert not np.isfinite(x).all(), f"{name}: rank {RANK} did not see {bad}"
            assert np.isfinite(feedback.residual).all(), f"{name}: {bad} would be sent again and again"
            x = comm.allreduce(normal(RANK, 1000).reshape(shape), "avg", codec=codec, feedback=feedback)
            assert np.isfinite(x).all(), f"{name}: {bad} came back"


@case
def powersgd():
    # Four columns more than the sum has ranks, so that random factors are at good angles with it.
    codec = pycoll.PowerSGD(SIZE + 4)
    shapes = [(30, 20), (7,), (16, 4, 10), (2, 2), ()]

    def arrays(rank):
        """Matrices of rank 1: the sum over ranks has rank SIZE."""
        random = np.random.default_rng(rank)
        sides = [
            (shape[0], int(np.prod(shape[1:]))) if len(shape) > 1 else (1, int(np.prod(shape))) for shape in shapes
        ]
        outer = [np.outer(random.standard_normal(n), random.standard_normal(m)) for n, m in sides]
        return [np.asarray(x.reshape(shape), F) for x, shape in zip(outer, shapes, strict=True)]

    feedback = Feedback(arrays(0))
    for step in range(2):
        x = comm.allreduce(arrays(RANK), codec=codec, feedback=feedback)
        for got, *inputs in zip(x, *map(arrays, range(SIZE)), strict=True):
            # Each rank's share is left to the others' factors; together nothing is left.
            wanted = sum(array.astype(np.float64) for array in inputs)
            assert np.abs(got - wanted).max() <= 1e-5 * SIZE * np.abs(wanted).max(), f"{got.shape}, step {step}"
    kept = gathered(feedback.residual).astype(np.float64).sum(0)
    assert np.abs(kept).max() <= 1e-4 * SIZE
    # What does not fit into the factors stays behind.
    x, feedback = normal(RANK, 600).reshape(30, 20), Feedback(600)
    inputs = gathered(x).astype(np.float64).sum(0)
    work = comm.allreduce(x, codec=pycoll.PowerSGD(1), feedback=feedback, wait=False)
    assert work.result() is x and np.linalg.matrix_rank(x) == 1
    kept = gathered(feedback.residual).astype(np.float64).sum(0).reshape(30, 20)
    assert np.abs(x + kept - inputs).max() <= 30 * 6 * SIZE * 2**-22 and np.abs(kept).max() > 0.1
    for words, call in (
        ("wanted sum or avg", lambda: comm.allreduce(x, "max", codec=codec)),
        ("wanted C-contiguous float32", lambda: comm.allreduce(x.astype(float), codec=codec)),
        ("residual of 5 elements for 600", lambda: comm.allreduce(x, codec=codec, feedback=Feedback(5))),
        ("differ from its arrays in shape", lambda: comm.allreduce(x, out=x[:5], codec=codec)),
    ):
        raises(pycoll.InvalidArgument, words, call)


@case
def disagreements():
    x = np.ones(1000, F)
    for words, options in (
        ("codec int8 block 64", lambda: {"codec": Int8(64 if RANK else 256)}),
        ("codec topk", lambda: {"codec": TopK(0.1) if RANK else TopK(0.2)}),
        ("codec identity", lambda: {"codec": Identity() if RANK else None}),
        ("codec shared", lambda: {"codec": None if RANK else SharedScale()}),
        ("seed 1", lambda: {"codec": RandomK(0.1, seed=RANK)}),
        ("everywhere", lambda: {"codec": Int8(), "everywhere": bool(RANK)}),
        ("step 1", lambda: {"codec": RandomK(0.1), "step": RANK}),
    ):
        if SIZE > 1:
            raises(pycoll.MismatchError, words, lambda how=options: comm.allreduce(x.copy(), **how()))
            assert (comm.allreduce(np.ones(3, F)) == SIZE).all()


@case
def bad_input():
    x = np.ones(6, F)
    for words, call in (
        ("residual of 5 elements for an array of 6", lambda: comm.allreduce(x, codec=Int8(), feedback=Feedback(5))),
        ("go with a codec, and only with one", lambda: comm.allreduce(x, feedback=Feedback(6))),
        ("go with a codec, and only with one", lambda: comm.allreduce(x, everywhere=True)),
        ("wanted a pycoll.Feedback", lambda: comm.allreduce(x, codec=Int8(), feedback=x)),
        ("got codec 'int8'", lambda: comm.allreduce(x, codec="int8")),
        ("its ratio follows a schedule", lambda: comm.allreduce(x, codec=TopK(pycoll.Warmup(0.01, 5)))),
        ("a codec and op max", lambda: comm.allreduce(x, "max", codec=Int8())),
        ("an array of f64, wanted f32, f16 or bf16", lambda: comm.allreduce(np.ones(6), codec=Int8())),
        ("an array of i32", lambda: comm.allreduce(np.ones(6, np.int32), codec=Int8())),
        ("step is -1", lambda: comm.allreduce(x, codec=Int8(), step=-1)),
        ("step is 1.5", lambda: comm.allreduce(x, codec=Int8(), step=1.5)),
        ("wanted one that sends messages", lambda: comm.allreduce(x, codec=Int8(), algo="direct")),
        ("out array of 5 elements", lambda: comm.allreduce(x, out=np.ones(5, F), codec=Int8())),
    ):
        raises(pycoll.InvalidArgument, words, call)
        assert (comm.allreduce(np.ones(3, F)) == SIZE).all()


if __name__ == "__main__":
    main(sys.argv[1:])
