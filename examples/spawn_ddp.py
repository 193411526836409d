"""Data-parallel training with torch alone: ranks by torch.multiprocessing, gradients by DistributedDataParallel.

    python examples/spawn_ddp.py --plot

pycoll is a backend of torch.distributed, and its name is all that there is of it in this file: --backend gloo trains
over Gloo, to the same numbers.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import look
import torch
import torch.distributed as dist
from digits import build, load
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset
from tqdm import tqdm


def train(rank, arguments, store):
    """What each rank runs."""
    torch.set_num_threads(1)  # ranks share the cores
    dist.init_process_group(arguments.backend, f"file://{store}", rank=rank, world_size=arguments.ranks)
    x_train, y_train, x_test, y_test = load(0, torch.float32)
    dataset = TensorDataset(x_train, y_train)
    sampler = DistributedSampler(dataset)  # a rank's share of each epoch
    loader = DataLoader(dataset, batch_size=arguments.batch // arguments.ranks, sampler=sampler)
    model = DistributedDataParallel(build(0, torch.float32))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    losses, accuracies = [], []
    with tqdm(total=arguments.epochs * len(loader), ncols=88, unit=" steps", disable=rank != 0) as bar:
        for epoch in range(arguments.epochs):
            sampler.set_epoch(epoch)
            shares = []
            for x, y in loader:
                loss = functional.cross_entropy(model(x), y)
                optimizer.zero_grad()
                loss.backward()  # gradients are averaged over the ranks meanwhile
                optimizer.step()
                shares.append(loss.detach())
                bar.update()
            mean = torch.stack(shares) / arguments.ranks
            dist.all_reduce(mean)
            losses += mean.tolist()
            with torch.no_grad():
                right = torch.sum(model(x_test[rank :: arguments.ranks]).argmax(1) == y_test[rank :: arguments.ranks])
            dist.all_reduce(right)
            accuracies.append(right.item() / len(x_test))
            if rank == 0:
                text = f"epoch {epoch + 1:3}   loss {mean.mean():.5f}   test accuracy {accuracies[-1]:.2%}"
                bar.write(text, file=sys.stdout)
    dist.destroy_process_group()
    if rank == 0 and arguments.plot:
        title = f"Handwritten digits, DDP on {arguments.ranks} ranks over {arguments.backend}"
        look.training(title, losses, accuracies, arguments.plot)


def main():
    parser = argparse.ArgumentParser(description="DistributedDataParallel on handwritten digits, over pycoll.")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--backend", default="pycoll")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=64, help="samples a step, of all ranks together (64)")
    parser.add_argument("--plot", nargs="?", const="out/spawn_ddp.png", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    if arguments.batch < arguments.ranks:
        parser.error("--batch must be at least --ranks")
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(train, (arguments, f"{folder}/store"), nprocs=arguments.ranks)


if __name__ == "__main__":
    main()
