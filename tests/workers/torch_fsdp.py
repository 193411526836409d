"""FSDP2 of a small transformer over pycoll, twice, and over Gloo: the same losses, the same bits where they must be.

    torchrun --standalone --nproc-per-node=4 tests/workers/torch_fsdp.py --steps 200

Over pycoll losses and weights are equal bit for bit over ranks and over both runs. Gloo adds in another order, so its
losses differ by rounding, and training makes that larger from step to step. How much is measured, not guessed: in a
second run over Gloo each rank gets its neighbour's batches, which changes the order of sums and nothing else.
"""

from __future__ import annotations

import argparse
import hashlib
import math
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

WORDS, WIDTH, LENGTH = 50, 32, 12
MORE = 4  # times what another order of sums gives by chance


def train(group: dist.ProcessGroup, steps: int, shift: int = 0) -> tuple[list[float], str]:
    """Each step's mean loss over all ranks, and a digest of the weights.

    shift: whose batches a rank gets: those of the rank so many places on.
    """
    ranks, place = dist.get_world_size(), (dist.get_rank() + shift) % dist.get_world_size()
    torch.manual_seed(0)

    def layer() -> nn.Module:
        return nn.TransformerEncoderLayer(WIDTH, 4, 2 * WIDTH, dropout=0.0, batch_first=True)

    model = nn.Sequential(nn.Embedding(WORDS, WIDTH), layer(), layer(), nn.Linear(WIDTH, WORDS))
    mesh = DeviceMesh.from_group(group, "cpu")
    for part in (model[1], model[2], model):
        fully_shard(part, mesh=mesh)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for step in range(steps):
        words = torch.randint(WORDS, (4, LENGTH), generator=torch.Generator().manual_seed(step * ranks + place))
        loss = nn.functional.cross_entropy(model(words).flatten(0, 1), (words * 3 % WORDS).flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        every = [torch.empty(()) for _ in range(ranks)]
        dist.all_gather(every, loss.detach())
        losses.append(math.fsum(x.item() for x in every) / ranks)  # exact, in any order
    weights = torch.cat([p.full_tensor().detach().reshape(-1) for p in model.parameters()])
    return losses, hashlib.sha256(weights.numpy().tobytes()).hexdigest()


def compare(group: dist.ProcessGroup, gloo: dist.ProcessGroup, steps: int) -> str:
    """Raises AssertionError unless all is as it must be; says what was found."""
    first, again = train(group, steps), train(group, steps)
    every: list[tuple[list[float], str]] = [first] * dist.get_world_size()
    dist.all_gather_object(every, first)
    assert first == again, "two runs differ"
    assert all(other == first for other in every), "ranks differ"
    control, reordered = train(gloo, steps)[0], train(gloo, steps, shift=1)[0]
    off = max(abs(a - b) for a, b in zip(first[0], control, strict=True))
    usual = max(abs(a - b) for a, b in zip(reordered, control, strict=True))
    assert off <= MORE * usual, f"losses differ from Gloo's by {off}, Gloo's own by {usual} in another order of sums"
    return f"loss {first[0][0]:.4f} to {first[0][-1]:.4f}; off Gloo's by {off:.1e}, Gloo's own reordered by {usual:.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200)
    steps = parser.parse_args().steps
    torch.set_num_threads(1)
    dist.init_process_group("pycoll", timeout=timedelta(seconds=60))
    found = compare(dist.group.WORLD, dist.new_group(backend="gloo"), steps)
    if dist.get_rank() == 0:
        print(f"{dist.get_world_size()} ranks, {steps} steps, bitwise equal over ranks and runs; {found}", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
