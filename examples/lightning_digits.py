"""Lightning over pycoll.

    python examples/lightning_digits.py

An ordinary script of Lightning's, with one argument more: DDPStrategy(process_group_backend="pycoll"). Lightning starts
the other ranks itself; under torchrun it takes those that are there.
"""

import argparse

import lightning
import torch
import torch.distributed as dist
from digits import build, load
from lightning.pytorch.strategies import DDPStrategy
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset


class Digits(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.network = build(0, torch.float32)

    def training_step(self, batch, index):
        x, y = batch
        return functional.cross_entropy(self.network(x), y)

    def validation_step(self, batch, index):
        x, y = batch
        right = (self.network(x).argmax(1) == y).float().mean()
        self.log("accuracy", right, batch_size=len(y), sync_dist=True)

    def on_validation_epoch_end(self):
        accuracy = self.trainer.callback_metrics["accuracy"]
        if self.global_rank == 0:
            print(f"epoch {self.current_epoch + 1:3}   test accuracy {accuracy:.2%}")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


def main():
    parser = argparse.ArgumentParser(description="Lightning on handwritten digits, over pycoll.")
    parser.add_argument("--backend", default="pycoll")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--ranks", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # ranks share the cores
    x_train, y_train, x_test, y_test = load(0, torch.float32)
    train = DataLoader(TensorDataset(x_train, y_train), batch_size=64 // arguments.ranks, shuffle=True)
    test = DataLoader(TensorDataset(x_test, y_test), batch_size=256)
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=arguments.ranks,
        strategy=DDPStrategy(process_group_backend=arguments.backend),
        max_epochs=arguments.epochs,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(Digits(), train, test)
    if trainer.is_global_zero:
        print(f"{trainer.world_size} ranks over {dist.get_backend()}")


if __name__ == "__main__":
    main()
