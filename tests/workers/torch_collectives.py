"""Every collective of torch.distributed over pycoll, against what it should give; started by test_torch_backend.py."""

from __future__ import annotations

import sys
import threading
import time
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional
from torch.distributed.device_mesh import init_device_mesh
from torch_cases import CASES, case, run, say_ok

DTYPES = [
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64),
]


def raises(error, call, *words):
    try:
        call()
    except error as caught:
        assert all(word in str(caught) for word in words), caught
    else:
        raise AssertionError(f"{call} raised nothing, wanted {error}")


def ramp(rank, shape=(3, 5), dtype=torch.float32):
    count = int(torch.Size(shape).numel())
    return (torch.arange(count) % 7 + rank + 1).reshape(shape).to(dtype)


def summed(shape=(3, 5), dtype=torch.float32):
    return sum(ramp(rank, shape, dtype) for rank in range(SIZE))


@case
def reductions():
    every = torch.stack([ramp(rank) for rank in range(SIZE)])
    wanted = {
        dist.ReduceOp.SUM: every.sum(0),
        dist.ReduceOp.AVG: every.mean(0),
        dist.ReduceOp.PRODUCT: every.prod(0),
        dist.ReduceOp.MIN: every.amin(0),
        dist.ReduceOp.MAX: every.amax(0),
        dist._make_nccl_premul_sum(0.5): every.sum(0) / 2,
    }
    for op, result in wanted.items():
        for async_op in (False, True):
            x = ramp(RANK)
            work = dist.all_reduce(x, op, async_op=async_op)
            assert not async_op or work.wait() is True
            torch.testing.assert_close(x, result)
        x = ramp(RANK)
        dist.reduce(x, SIZE - 1, op)
        torch.testing.assert_close(x, result if RANK == SIZE - 1 else ramp(RANK))
        if SIZE == 3:
            out = torch.zeros(5)
            dist.reduce_scatter_tensor(out, ramp(RANK), op)
            torch.testing.assert_close(out, result[RANK])
    bits = torch.tensor([1 << RANK, 7], dtype=torch.int32)
    for op, result in (
        (dist.ReduceOp.BOR, [(1 << SIZE) - 1, 7]),
        (dist.ReduceOp.BXOR, [(1 << SIZE) - 1, 7 * (SIZE % 2)]),
    ):
        x = bits.clone()
        dist.all_reduce(x, op)
        assert x.tolist() == result, x
    dist.all_reduce(bits, dist.ReduceOp.BAND)
    assert bits.tolist() == [0 if SIZE > 1 else 1, 7]
    for dtype in DTYPES:
        x = ramp(RANK, dtype=dtype)
        dist.all_reduce(x)
        assert torch.equal(x, summed(dtype=dtype)), dtype


@case
def reductions_torch_defines_oddly():
    flags = torch.tensor([RANK == 0, False, True])
    for op, result in ((dist.ReduceOp.MAX, [True, False, True]), (dist.ReduceOp.MIN, [SIZE == 1, False, True])):
        x = flags.clone()
        dist.all_reduce(x, op)
        assert x.tolist() == result
    z = torch.complex(ramp(RANK), -ramp(RANK))
    dist.all_reduce(z)
    assert torch.equal(z, torch.complex(summed(), -summed()))
    raises(ValueError, lambda: dist.all_reduce(z, dist.ReduceOp.MAX), "complex")
    raises(ValueError, lambda: dist.all_reduce(torch.zeros(3, dtype=torch.float8_e5m2)), "float8_e5m2")
    raises(RuntimeError, lambda: dist.all_reduce(torch.zeros(3), dist.ReduceOp.BAND), "and", "f32")
    i = torch.eye(4).to_sparse() * (RANK + 1)
    dist.all_reduce(i)
    assert torch.equal(i.to_dense(), torch.eye(4) * SIZE * (SIZE + 1) / 2)


@case
def layouts():
    """What is not contiguous, requires grad, or has no elements or dimensions."""
    x = ramp(RANK, (4, 6)).t()
    dist.all_reduce(x)
    assert torch.equal(x, summed((4, 6)).t())
    x = ramp(RANK, (4, 6))[:, ::2]
    work = dist.all_reduce(x, async_op=True)
    work.wait()
    assert torch.equal(x, summed((4, 6))[:, ::2])
    x = ramp(RANK).requires_grad_()
    dist.broadcast(x, 0)
    assert torch.equal(x, ramp(0)) and x.requires_grad
    for shape in ((0,), ()):
        x = ramp(RANK, shape)
        dist.all_reduce(x)
        assert torch.equal(x, summed(shape))


@case
def gathers():
    for dtype in (*DTYPES, torch.bool, torch.complex64, torch.float8_e4m3fn):
        mine = ramp(RANK).to(dtype)
        every = [ramp(rank).to(dtype) for rank in range(SIZE)]

        def same(a, b):
            return all(torch.equal(x.to(torch.complex64), y.to(torch.complex64)) for x, y in zip(a, b, strict=True))

        out = [torch.empty_like(mine) for _ in range(SIZE)]
        dist.all_gather(out, mine)
        assert same(out, every), dtype
        whole = torch.empty((3 * SIZE, 5), dtype=dtype)
        dist.all_gather(list(whole.chunk(SIZE)), mine)  # places that lie one behind the other
        assert same([whole], [torch.cat([e.to(torch.complex64) for e in every])]), dtype
        whole = torch.empty((3 * SIZE, 5), dtype=dtype)
        dist.all_gather_into_tensor(whole, mine)
        assert same(whole.chunk(SIZE), every), dtype
        stack = torch.empty((SIZE, 3, 5), dtype=dtype)
        stack[RANK] = mine
        dist.all_gather_into_tensor(stack, stack[RANK])  # in place
        assert same(stack, every), dtype
        out = [torch.empty_like(mine) for _ in range(SIZE)] if RANK == 1 else None
        dist.gather(mine, out, 1)
        assert RANK != 1 or same(out, every), dtype
        mine = torch.empty_like(mine)
        dist.scatter(mine, every if RANK == 1 else None, 1)
        assert same([mine], [every[RANK]]), dtype
        x = ramp(RANK).to(dtype)
        dist.broadcast(x, SIZE - 1)
        assert same([x], [every[-1]]), dtype
    out = [torch.empty(rank + 1) for rank in range(SIZE)]  # of uneven sizes
    dist.all_gather(out, torch.full((RANK + 1,), float(RANK)))
    assert all(torch.equal(x, torch.full((rank + 1,), float(rank))) for rank, x in enumerate(out))


@case
def scattered_sums():
    chunks = [ramp(RANK, (2, 4)) * (to + 1) for to in range(SIZE)]
    out = torch.empty(2, 4)
    dist.reduce_scatter(out, chunks)
    assert torch.equal(out, summed((2, 4)) * (RANK + 1))
    out = torch.empty(2, 4)
    dist.reduce_scatter_tensor(out, torch.cat(chunks))
    assert torch.equal(out, summed((2, 4)) * (RANK + 1))
    out = torch.empty(RANK + 1)
    dist.reduce_scatter(out, [torch.ones(to + 1) for to in range(SIZE)])  # of uneven sizes
    assert torch.equal(out, torch.full((RANK + 1,), float(SIZE)))


@case
def all_to_alls():
    mine = [torch.full((to + 1, 2), float(RANK)) for to in range(SIZE)]
    wanted = [torch.full((RANK + 1, 2), float(source)) for source in range(SIZE)]
    out = [torch.empty(RANK + 1, 2) for _ in range(SIZE)]
    dist.all_to_all(out, mine)
    assert all(torch.equal(a, b) for a, b in zip(out, wanted, strict=True))
    for dtype in (torch.float32, torch.float8_e5m2, torch.complex64):
        whole = torch.empty((RANK + 1) * SIZE, 2, dtype=dtype)
        rows = [to + 1 for to in range(SIZE)]
        dist.all_to_all_single(whole, torch.cat(mine).to(dtype), [RANK + 1] * SIZE, rows)
        assert torch.equal(whole.to(torch.complex64), torch.cat(wanted).to(torch.complex64))
    x = torch.arange(SIZE * 2).float() + 100 * RANK
    out = torch.empty(SIZE * 2)
    dist.all_to_all_single(out, x)
    assert torch.equal(out, torch.cat([torch.arange(2).float() + 2 * RANK + 100 * s for s in range(SIZE)]))
    raises(ValueError, lambda: dist.all_to_all_single(out, x, None, [1] * SIZE), "split")


@case
def messages():
    to, source = (RANK + 1) % SIZE, (RANK - 1) % SIZE
    x, y = ramp(RANK), torch.empty(3, 5)
    works = dist.batch_isend_irecv([dist.P2POp(dist.isend, x, to), dist.P2POp(dist.irecv, y, source)])
    for work in works:
        work.wait()
    assert torch.equal(y, ramp(source))
    # By tags, received in the other order.
    sending = [dist.isend(torch.full((n,), float(n)), to, tag=n) for n in (1, 200_000, 3)]
    for n in (3, 200_000, 1):
        y = torch.empty(n)
        assert dist.recv(y, source, tag=n) == source
        assert torch.equal(y, torch.full((n,), float(n)))
    for work in sending:
        work.wait()
    # From whoever sends.
    if RANK == 0:
        got = set()
        for _ in range(SIZE - 1):
            y = torch.empty(2)
            sender = dist.recv(y, tag=5)
            assert y.tolist() == [sender, -sender]
            got.add(sender)
        assert got == set(range(1, SIZE)), got
    else:
        dist.send(torch.tensor([float(RANK), -float(RANK)]), 0, tag=5)
    dist.barrier()
    y = torch.empty(3, 10)[:, ::2]  # not contiguous
    works = [dist.isend(ramp(RANK, (5, 3)).t(), to), dist.irecv(y, source)]
    for work in works:
        work.wait()
    assert torch.equal(y, ramp(source, (5, 3)).t())


@case
def objects():
    out = [None] * SIZE
    dist.all_gather_object(out, {"rank": RANK, "text": "x" * RANK})
    assert out == [{"rank": r, "text": "x" * r} for r in range(SIZE)]
    things = [RANK, "one", {2: 3}] if RANK == 1 else [None] * 3
    dist.broadcast_object_list(things, 1)
    assert things == [1, "one", {2: 3}]
    gathered = [None] * SIZE if RANK == 0 else None
    dist.gather_object(RANK * 11, gathered, 0)
    assert RANK != 0 or gathered == [r * 11 for r in range(SIZE)]
    mine = [None]
    dist.scatter_object_list(mine, [f"for {r}" for r in range(SIZE)] if RANK == 0 else None, 0)
    assert mine == [f"for {RANK}"]
    if RANK == 0:
        dist.send_object_list(["a", 1], 1)
    elif RANK == 1:
        box = [None, None]
        dist.recv_object_list(box, 0)
        assert box == ["a", 1]


@case
def works():
    x = ramp(RANK)
    work = dist.all_reduce(x, async_op=True)
    future = work.get_future().then(lambda done: done.value()[0] * 2)
    assert torch.equal(future.wait(), summed() * 2)
    assert work.is_completed() and work.is_success() and work.exception() is None
    assert torch.equal(work.result()[0], summed())
    # A callback that waits for another operation's future.
    inner = torch.ones(4)

    def nested(done):
        return dist.all_reduce(inner, async_op=True).get_future().wait()[0] + done.value()[0].sum()

    x = torch.ones(2)
    result = dist.all_reduce(x, async_op=True).get_future().then(nested).wait()
    assert torch.equal(result, torch.full((4,), float(SIZE) + 2 * SIZE))
    work = dist.barrier(async_op=True)
    work.wait(timedelta(seconds=20))
    if RANK == 0:  # a timeout of wait() leaves the operation be
        y = torch.zeros(1)
        work = dist.irecv(y, 1)
        raises(RuntimeError, lambda: work.wait(timedelta(milliseconds=20)), "0.02 s")
        assert not work.is_completed() and work.exception() is None
        dist.send(torch.zeros(1), 1)
        assert work.wait() and y == 7
    elif RANK == 1:
        dist.recv(torch.zeros(1), 0)
        dist.send(torch.full((1,), 7.0), 0)


@case
def coalesced():
    tensors = [ramp(RANK), ramp(RANK, (7,), torch.float64), ramp(RANK, (2,))]
    dist.group.WORLD.allreduce_coalesced(tensors).wait()  # dist.all_reduce_coalesced wants one element type
    wanted = [summed(), summed((7,), torch.float64), summed((2,))]
    assert all(torch.equal(a, b) for a, b in zip(tensors, wanted, strict=True))
    tensors = [ramp(RANK), ramp(RANK, (2,))]
    with dist._coalescing_manager(async_ops=True) as manager:
        for tensor in tensors:
            dist.all_reduce(tensor)
    manager.wait()
    assert torch.equal(tensors[0], summed()) and torch.equal(tensors[1], summed((2,)))
    outs = [torch.empty(3 * SIZE, 5), torch.empty(2 * SIZE)]
    with dist._coalescing_manager():
        dist.all_gather_into_tensor(outs[0], ramp(RANK))
        dist.all_gather_into_tensor(outs[1], ramp(RANK, (2,)))
    assert torch.equal(outs[1], torch.cat([ramp(r, (2,)) for r in range(SIZE)]))
    with dist._coalescing_manager(device=torch.device("cpu"), async_ops=True) as manager:
        sent = dist.isend(ramp(RANK), (RANK + 1) % SIZE)
        place = torch.empty(3, 5)
        dist.irecv(place, (RANK - 1) % SIZE)
    manager.wait()
    assert sent.is_completed() and torch.equal(place, ramp((RANK - 1) % SIZE))


@case
def groups():
    pair = dist.new_group([SIZE - 1, 0])
    if RANK in (0, SIZE - 1):
        x = torch.tensor([float(RANK)])
        dist.all_reduce(x, group=pair)
        assert x.item() == SIZE - 1
        dist.destroy_process_group(pair)
    mine, every = dist.new_subgroups(group_size=1)
    assert len(every) == SIZE and dist.get_world_size(mine) == 1
    part = dist.group.WORLD.split_group([0, 1])
    assert (part is None) == (RANK > 1)
    if part is not None:
        x = torch.ones(1)
        part.allreduce([x]).wait()
        part.broadcast(x, 0).wait()
        assert x.item() == 2 and part.rank() == RANK
        part.shutdown()
    mesh = init_device_mesh("cpu", (SIZE,), mesh_dim_names=("dp",))
    x = torch.ones(1)
    dist.all_reduce(x, group=mesh["dp"].get_group())
    assert x.item() == SIZE
    group = dist.group.WORLD
    assert (group.rank(), group.size(), group.name()) == (RANK, SIZE, "pycoll")
    assert dist.get_backend() == "pycoll"
    gathered = [torch.empty(1)] * SIZE
    group.allgather(gathered, torch.ones(1)).wait()


@case
def functional_collectives():
    group = dist.group.WORLD
    assert torch.equal(functional.all_reduce(ramp(RANK), "sum", group), summed())
    assert torch.equal(functional.all_gather_tensor(ramp(RANK), 0, group), torch.cat([ramp(r) for r in range(SIZE)]))
    x = torch.ones(SIZE * 2)
    assert torch.equal(functional.reduce_scatter_tensor(x, "avg", 0, group), torch.ones(2))
    x = torch.arange(SIZE).float()
    assert torch.equal(functional.all_to_all_single(x, None, None, group), torch.full((SIZE,), float(RANK)))
    out = functional.all_reduce_coalesced([ramp(RANK), ramp(RANK)], "max", group)
    assert all(torch.equal(x, ramp(SIZE - 1)) for x in out)
    assert torch.equal(functional.broadcast(ramp(RANK), 0, group), ramp(0))


@case
def barriers():
    dist.barrier()
    group = dist.group.WORLD
    group.monitored_barrier(timedelta(seconds=20))
    words = ["Rank 1 failed to pass"] if RANK == 0 else ["received errors", "ranks 1 did not come"]
    if RANK == 1:  # comes late, and is told
        time.sleep(1)
    raises(RuntimeError, lambda: group.monitored_barrier(timedelta(seconds=0.3 if RANK == 0 else 20)), *words)
    group.monitored_barrier(timedelta(seconds=20))


@case
def refusals():
    """Sentences, alike on all ranks where ranks disagree; the group can be used on."""
    raises(RuntimeError, lambda: dist.all_reduce(torch.zeros(3 + (RANK == 1))), "rank 1 called allreduce f32[4]")
    raises(RuntimeError, lambda: dist.all_gather([torch.zeros(2)] * SIZE, torch.zeros(3)), "2")
    raises(ValueError, lambda: dist.all_gather_into_tensor(torch.zeros(SIZE * 2 + 1), torch.zeros(2)), "wanted")
    eights = torch.zeros(SIZE, dtype=torch.float8_e5m2), torch.zeros(1, dtype=torch.float8_e4m3fn)
    raises(
        ValueError, lambda: dist.group.WORLD.all_gather_single(*eights), "float8_e5m2[", "wanted torch.float8_e4m3fn"
    )
    x = torch.ones(1)
    dist.all_reduce(x)
    assert x.item() == SIZE


@case
def profiled():
    """Ranges with shapes, from the call until the operation has ended."""
    with torch.profiler.profile(record_shapes=True) as profiler:
        dist.all_reduce(torch.ones(3))
        dist.all_gather([torch.ones(2)] * SIZE, torch.ones(2))
        if RANK == 1:
            dist.irecv(torch.zeros(4), 0).wait()
        if RANK == 0:
            time.sleep(0.1)
            dist.send(torch.ones(4), 1)
    ranges = {event.name: event for event in profiler.events() if event.name.startswith("pycoll:")}
    wanted = {"pycoll:all_reduce": [[3]], "pycoll:all_gather": [[2]]} | ({"pycoll:recv": [[4]]} if RANK == 1 else {})
    assert all(ranges[name].input_shapes == shapes and ranges[name].is_async for name, shapes in wanted.items())
    assert RANK != 1 or ranges["pycoll:recv"].cpu_time_total > 0.05e6, ranges


@case
def gradients():
    """DistributedDataParallel, with whatever TORCH_DISTRIBUTED_DEBUG makes of it: over Gloo, DETAIL ends torch 2.13."""
    torch.manual_seed(RANK)
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(5, 1))
    model(ramp(RANK)).sum().backward()
    mean = sum(ramp(rank).sum(0) for rank in range(SIZE)) / SIZE
    torch.testing.assert_close(model.module.weight.grad, mean.reshape(1, 5))


@case
def compiled():
    """The functional collectives, and those in place, inside a compiled graph."""
    if sys.argv[1:]:  # compiling takes seconds, and does not depend on who started the ranks
        return
    group = dist.group.WORLD

    def step(x):
        y = functional.all_gather_tensor(functional.all_reduce(x * 2, "sum", group) + 1, 0, group)
        return functional.reduce_scatter_tensor(y, "avg", 0, group) * 2

    def in_place(x):
        x = x + 1
        dist.all_reduce(x)
        return x

    for function in (step, in_place):
        graph = torch.compile(function, backend="aot_eager", fullgraph=True)
        assert torch.equal(graph(ramp(RANK)), function(ramp(RANK)))


@case
def from_threads():
    """Each thread its own group."""
    groups = [dist.new_group() for _ in range(2)]
    wrong = []

    def work(group):
        for i in range(50):
            x = torch.full((1000,), float(i))
            dist.all_reduce(x, group=group)
            if x[0] != i * SIZE:
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(group,)) for group in groups]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def main():
    global RANK, SIZE
    for turn in range(2):  # a group can be made again
        dist.init_process_group("pycoll", *sys.argv[1:2], timeout=timedelta(seconds=40))
        RANK, SIZE = dist.get_rank(), dist.get_world_size()
        run(CASES if turn == 0 else CASES[:1])
        dist.destroy_process_group()
    say_ok(RANK, SIZE)


if __name__ == "__main__":
    main()
