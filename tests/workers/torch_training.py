"""Training over pycoll and over Gloo, from the same start, gives the same numbers; see test_torch_training.py."""

from __future__ import annotations

import sys
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as checkpoint
import torch_fsdp
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.distributed.pipelining import PipelineStage, ScheduleGPipe
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel as DDP
from torch_cases import CASES, case, run, say_ok

import pycoll.torch

WIDTH, STEPS = 24, 4


def make_model(layers=4):
    torch.manual_seed(3)
    return nn.Sequential(*(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()) for _ in range(layers)))


def batch(step, rank=None):
    generator = torch.Generator().manual_seed(100 * step + (RANK if rank is None else rank))
    return torch.randn(8, WIDTH, generator=generator)


def same_everywhere(tensors):
    """Bit for bit on all ranks."""
    for tensor in tensors:
        every = [torch.empty_like(tensor) for _ in range(SIZE)]
        dist.all_gather(every, tensor)
        assert all(torch.equal(x, tensor) for x in every)


def mapping_of(tensor):
    """What the kernel calls the memory where a tensor lies."""
    with open("/proc/self/maps") as maps:
        for line in maps:
            begin, end = (int(bound, 16) for bound in line.split()[0].split("-"))
            if begin <= tensor.data_ptr() < end:
                return line
    raise AssertionError("no such memory")


def both(train, tolerance=None):
    """`train(group)` over pycoll and over Gloo returns the same."""
    ours, theirs = train(dist.group.WORLD), train(GLOO)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, **(tolerance or {}))
    return ours


def descend(model, optimizer, steps=STEPS):
    for step in range(steps):
        optimizer.zero_grad()
        model(batch(step)).square().mean().backward()
        optimizer.step()


@case
def ddp():
    def train(group, **settings):
        model = DDP(make_model(), process_group=group, bucket_cap_mb=0.003, **settings)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        descend(model, optimizer)
        with model.no_sync():
            model(batch(9)).sum().backward()
        descend(model, optimizer, 1)
        return [p.detach() for p in model.parameters()]

    for settings in (
        {},
        {"gradient_as_bucket_view": True},
        {"find_unused_parameters": True},
        {"static_graph": True},
    ):
        same_everywhere(both(lambda group, settings=settings: train(group, **settings)))


@case
def ddp_uneven_inputs():
    def train(group):
        model = DDP(make_model(2), process_group=group)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with model.join():
            descend(model, optimizer, 2 + RANK)
        return [p.detach() for p in model.parameters()]

    both(train)


@case
def ddp_hooks():
    from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook

    def train(group, hook):
        model = DDP(make_model(2), process_group=group)
        if hook is powerSGD_hook.powerSGD_hook:
            state = powerSGD_hook.PowerSGDState(group, matrix_approximation_rank=2, start_powerSGD_iter=2)
        else:
            state = group
        model.register_comm_hook(state, hook)
        descend(model, torch.optim.SGD(model.parameters(), lr=0.1))
        return [p.detach() for p in model.parameters()]

    for hook in (default_hooks.allreduce_hook, default_hooks.fp16_compress_hook, powerSGD_hook.powerSGD_hook):
        both(lambda group, hook=hook: train(group, hook), {"rtol": 1e-3, "atol": 1e-3})


@case
def ddp_compressed():
    """Gradients are constant: what the weights have moved and what is kept add up to all gradients, also after DDP has
    made its buckets anew, and after a checkpoint was loaded."""
    rows, rate, steps = 60, 0.5, 6

    def pull(layer):
        """The gradient of a layer's weight on this rank."""
        return torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(10 * RANK + layer))

    class Pulled(nn.Module):
        def __init__(self):
            super().__init__()
            self.weights = nn.ParameterList(torch.zeros(rows, WIDTH) for _ in range(3))
            self.bias = nn.Parameter(torch.zeros(WIDTH))

        def forward(self):
            # In another order than that of the parameters: DDP makes its buckets anew after the first pass.
            return sum((self.weights[i] * pull(i)).sum() for i in (1, 2, 0)) + (self.bias * (RANK + 1)).sum()

    def start(group, how, saved=None):
        net = Pulled()
        hook_state = pycoll.torch.state(codec=how, named_parameters=net.named_parameters(), process_group=group)
        if saved:
            net.load_state_dict(saved[0])
            hook_state.load_state_dict(saved[1])
        model = DDP(net, process_group=group, bucket_cap_mb=0.005)
        model.register_comm_hook(hook_state, pycoll.torch.compress_hook)
        return net, model, hook_state

    def descend(net, model, steps):
        optimizer = torch.optim.SGD(net.parameters(), lr=rate)
        for _ in range(steps):
            optimizer.zero_grad()
            model().backward()
            optimizer.step()

    def train(group, how, left):
        net, model, hook_state = start(group, how)
        descend(net, model, steps // 2)
        saved = {name: x.clone() for name, x in net.state_dict().items()}, hook_state.state_dict()
        descend(net, model, steps - steps // 2)
        resumed, model, resumed_state = start(group, how, saved)
        descend(resumed, model, steps - steps // 2)
        for weights, kept in (
            (net.weights, hook_state.state_dict()["residuals"]),
            (resumed.weights, resumed_state.state_dict()["residuals"]),
        ):
            for i, weight in enumerate(weights):
                lost = pull(i) * steps + weight.detach() / rate - kept.get(f"weights.{i}", 0)
                dist.all_reduce(lost)  # what this rank lacks another may have sent too much
                left.append(lost.abs().max())
        torch.testing.assert_close(net.bias.detach(), torch.full((WIDTH,), -rate * steps * (SIZE + 1) / 2))
        return [p.detach() for p in net.parameters()]

    for codec in (pycoll.TopK(0.1), pycoll.Int8(), pycoll.PowerSGD(2)):
        how, left = pycoll.Compression(codec, everywhere=True), []
        same_everywhere(both(lambda group, how=how, left=left: train(group, how, left)))
        assert max(left) < 1e-4, (codec, left)
    left = []
    train(None, pycoll.Compression(pycoll.TopK(0.1), everywhere=True, feedback=False), left)
    assert max(left) > 1, left  # the control


@case
def fsdp():
    def train(group, **settings):
        mesh, model = DeviceMesh.from_group(group, "cpu"), make_model()
        for layer in model:
            fully_shard(layer, mesh=mesh, **settings)
        fully_shard(model, mesh=mesh, **settings)
        descend(model, torch.optim.Adam(model.parameters(), lr=0.01))
        return [p.full_tensor().detach() for p in model.parameters()]

    same_everywhere(both(train))
    bf16 = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.bfloat16)
    both(lambda group: train(group, mp_policy=bf16), {"rtol": 0.02, "atol": 0.02})


@case
def fsdp_transformer():
    """A few steps of what torch_fsdp.py, started by hand, does for 200."""
    torch_fsdp.compare(dist.group.WORLD, GLOO, 10)


@case
def ddp_shared_buckets():
    """Gradients are averaged in symmetric memory, also after DDP has made its buckets anew."""

    def train(group, shared):
        net = make_model(6)
        model = DDP(net, process_group=group, bucket_cap_mb=0.005, gradient_as_bucket_view=True)
        if shared:
            model.register_comm_hook(pycoll.torch.SharedBuckets(group), pycoll.torch.allreduce_hook)
        descend(model, torch.optim.SGD(model.parameters(), lr=0.1))
        return [p.detach() for p in model.parameters()], [p.grad for p in model.parameters()]

    (ours, gradients), (theirs, _) = train(dist.group.WORLD, True), train(GLOO, False)
    same_everywhere(ours)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)
    assert all("memfd:pycoll" in mapping_of(gradient) for gradient in gradients)
    try:
        train(GLOO, True)
    except ValueError as error:
        assert "over pycoll" in str(error)
    else:
        raise AssertionError("buckets shared over Gloo")


@case
def hybrid_fsdp():
    """Sharded in pairs, replicated over them: the same as sharded over all."""
    if SIZE % 2:
        return

    def train(mesh):
        model = make_model()
        fully_shard(model, mesh=mesh)
        descend(model, torch.optim.SGD(model.parameters(), lr=0.1))
        return [p.full_tensor().detach() for p in model.parameters()]

    hybrid = train(init_device_mesh("cpu", (SIZE // 2, 2), mesh_dim_names=("replicate", "shard")))
    for a, b in zip(hybrid, train(init_device_mesh("cpu", (SIZE,))), strict=True):
        torch.testing.assert_close(a, b)


@case
def zero_redundancy():
    def train(group):
        model = DDP(make_model(), process_group=group)
        optimizer = ZeroRedundancyOptimizer(
            model.parameters(), optimizer_class=torch.optim.Adam, process_group=group, lr=0.01
        )
        descend(model, optimizer)
        return [p.detach() for p in model.parameters()]

    same_everywhere(both(train))


@case
def tensor_parallel():
    def train(group):
        torch.manual_seed(5)
        model = nn.Sequential(nn.Linear(WIDTH, 12 * SIZE), nn.ReLU(), nn.Linear(12 * SIZE, WIDTH))
        mesh = DeviceMesh.from_group(group, "cpu")
        model = parallelize_module(model, mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(STEPS):
            optimizer.zero_grad()
            out = model(batch(step, rank=0))
            out.square().mean().backward()
            optimizer.step()
        return [out.detach(), *(p.full_tensor().detach() for p in model.parameters())]

    both(train)


@case
def pipeline():
    def train(group):
        stage = PipelineStage(make_model(SIZE)[RANK], RANK, SIZE, torch.device("cpu"), group=group)
        schedule = ScheduleGPipe(stage, n_microbatches=4, loss_fn=lambda out, goal: (out - goal).square().mean())
        x, goal, losses = batch(0, rank=0), batch(1, rank=0), []
        given = (x,) if RANK == 0 else ()
        last = {"target": goal, "losses": losses} if RANK == SIZE - 1 else {}
        schedule.step(*given, **last)
        return [*(p.grad for p in stage.submod.parameters()), *(loss.detach() for loss in losses)]

    both(train)


@case
def checkpoints():
    for group in (dist.group.WORLD, GLOO):
        model = make_model()
        for layer in model:
            fully_shard(layer, mesh=DeviceMesh.from_group(group, "cpu"))
        wanted = {name: x.full_tensor().clone() for name, x in model.state_dict().items()}
        place = f"{sys.argv[1]}/{'pycoll' if group is not GLOO else 'gloo'}"
        checkpoint.save(model.state_dict(), checkpoint_id=place, process_group=group)
        state = {name: torch.zeros_like(x) for name, x in model.state_dict().items()}
        checkpoint.load(state, checkpoint_id=place, process_group=group)
        assert all(torch.equal(state[name].full_tensor(), x) for name, x in wanted.items())


def main():
    global RANK, SIZE, GLOO
    torch.set_num_threads(1)
    dist.init_process_group("pycoll", timeout=timedelta(seconds=60))
    RANK, SIZE = dist.get_rank(), dist.get_world_size()
    GLOO = dist.new_group(backend="gloo")
    run(CASES)
    dist.destroy_process_group()
    say_ok(RANK, SIZE)


if __name__ == "__main__":
    main()
