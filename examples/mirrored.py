"""Mirrored training: every rank has a replica of all variables, and every replica makes the same updates.

    pycoll run -n 2 examples/mirrored.py --plot

A batch is dealt out to the replicas. Each computes the gradient of its samples' part in the batch's mean loss, and
`allreduce` adds the parts up: now every replica has the gradient of the whole batch, the same to the last bit. The
replicas begin alike, so they stay alike; at the end that is checked.
"""

import argparse
import sys
from pathlib import Path

import look
import numpy as np
import torch
from digits import build, load
from torch.nn import functional
from tqdm import tqdm

import pycoll


def train(arguments, comm):
    """Prints a line an epoch. Returns losses of the steps, accuracies of the epochs, and all variables."""
    x_train, y_train, x_test, y_test = load(0, torch.float32)
    model = build(comm.rank, torch.float32)
    variables = list(model.parameters())
    for variable in variables:  # each rank has drawn its own; those of rank 0 are taken
        comm.broadcast(variable.detach(), root=0)
    optimizer = torch.optim.SGD(variables, lr=0.05, momentum=0.9)
    order = torch.Generator().manual_seed(0)  # the same everywhere: the replicas know each other's shares
    losses, accuracies = [], []
    steps = -(-len(x_train) // arguments.batch)
    with tqdm(total=arguments.epochs * steps, ncols=88, unit=" steps", disable=comm.rank != 0) as bar:
        for epoch in range(arguments.epochs):
            for batch in torch.randperm(len(x_train), generator=order).split(arguments.batch):
                mine = batch[comm.rank :: comm.size]
                # Divided by the samples of all replicas, so that the sum over replicas is the batch's mean.
                loss = functional.cross_entropy(model(x_train[mine]), y_train[mine], reduction="sum") / len(batch)
                optimizer.zero_grad()
                loss.backward()
                comm.allreduce([variable.grad for variable in variables])
                optimizer.step()
                losses.append(loss.item())
                bar.update()
            with torch.no_grad():
                guesses = model(x_test[comm.rank :: comm.size]).argmax(1)
            right = comm.allreduce(np.array([torch.sum(guesses == y_test[comm.rank :: comm.size])]))[0]
            accuracies.append(right / len(x_test))
            mean = comm.allreduce(np.array(losses[-steps:])).mean()
            if comm.rank == 0:
                bar.write(
                    f"epoch {epoch + 1:3}   loss {mean:.5f}   test accuracy {accuracies[-1]:.2%}", file=sys.stdout
                )
    momenta = [optimizer.state[variable]["momentum_buffer"] for variable in variables]
    return comm.allreduce(np.array(losses)), accuracies, variables + momenta


def alike(comm, tensors):
    """True, on all ranks, if the float32 tensors have the same bits on all ranks."""
    bits = torch.cat([tensor.detach().flatten() for tensor in tensors]).numpy().view(np.uint32)
    lowest, highest = (comm.allreduce(bits, op, out=np.empty_like(bits)) for op in ("min", "max"))
    return bool(np.array_equal(lowest, highest))


def main():
    parser = argparse.ArgumentParser(description="Mirrored training of a digit classifier.")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=64, help="samples a step, of all replicas together (64)")
    parser.add_argument("--plot", nargs="?", const="out/mirrored.png", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # ranks share the cores
    with pycoll.init() as comm:
        losses, accuracies, variables = train(arguments, comm)
        same = alike(comm, variables)
        rank, ranks = comm.rank, comm.size
    if rank == 0:
        count = sum(variable.numel() for variable in variables)
        print(
            f"{ranks} replicas of {count:,} variables and momenta: {'the same to the last bit' if same else 'DIFFER'}"
        )
        if arguments.plot:
            look.training(f"Handwritten digits, {ranks} mirrored replicas", losses, accuracies, arguments.plot)
    sys.exit(not same)


if __name__ == "__main__":
    main()
