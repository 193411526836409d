"""Hugging Face Accelerate over pycoll.

    torchrun --nproc-per-node 2 examples/accelerate_digits.py

Accelerate chooses between Gloo and MPI on CPU, unless a process group is there already: so the script makes one, before
the Accelerator. All else is an ordinary script of Accelerate's.
"""

import argparse

import torch
import torch.distributed as dist
from accelerate import Accelerator
from digits import build, load
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset


def main():
    parser = argparse.ArgumentParser(description="Accelerate on handwritten digits, over pycoll.")
    parser.add_argument("--backend", default="pycoll")
    parser.add_argument("--epochs", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # ranks share the cores
    dist.init_process_group(arguments.backend)
    accelerator = Accelerator(cpu=True)
    x_train, y_train, x_test, y_test = load(0, torch.float32)
    model = build(0, torch.float32)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    train = DataLoader(TensorDataset(x_train, y_train), batch_size=64 // accelerator.num_processes, shuffle=True)
    test = DataLoader(TensorDataset(x_test, y_test), batch_size=256)
    model, optimizer, train, test = accelerator.prepare(model, optimizer, train, test)
    accelerator.print(f"{accelerator.num_processes} ranks over {dist.get_backend()}, {type(model).__name__}")
    for epoch in range(arguments.epochs):
        for x, y in train:
            loss = functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
        right = 0
        with torch.no_grad():
            for x, y in test:
                guesses, labels = accelerator.gather_for_metrics((model(x).argmax(1), y))
                right += torch.sum(guesses == labels).item()
        loss = accelerator.reduce(loss.detach(), "mean")
        text = f"epoch {epoch + 1:3}   loss of the last step {loss:.5f}   test accuracy {right / len(y_test):.2%}"
        accelerator.print(text)
    accelerator.end_training()


if __name__ == "__main__":
    main()
