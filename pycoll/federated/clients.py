"""What a client does with the parameters that it gets: any object with these methods, or torch's usual loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..errors import InvalidArgument

if TYPE_CHECKING:
    import torch


class Clients(Protocol):
    """All clients of a federation, by number. A rank calls train() only for those that it hosts."""

    def __len__(self) -> int: ...

    def parameters(self) -> np.ndarray:
        """What training starts from: float32[count] or float64[count]."""

    def samples(self, client: int) -> int:
        """How many samples the client has: its weight in the mean."""

    def train(self, client: int, parameters: np.ndarray, round: int) -> np.ndarray:
        """The parameters after the client's own training, like `parameters`, which is the client's own copy."""


@dataclass
class TorchClients:
    """SGD over each client's samples, `epochs` times, in batches of `batch`; with `proximal` above 0, FedProx.

    data[client]: (inputs, targets), tensors of as many rows; a rank needs those of the clients that it hosts. loss:
    f(model(inputs), targets), the mean over a batch. proximal: mu of mu/2 |w - w_received|^2 added to the loss (Li et
    al. 2020). Batches are cut, for each epoch in turn, from a permutation of
    ``numpy.random.default_rng([seed, round, client])``.

    Only parameters are exchanged: a model with running statistics (BatchNorm) is refused, GroupNorm and LayerNorm work.
    """

    model: torch.nn.Module
    loss: Any
    data: Sequence[tuple[Any, Any]] | Mapping[int, tuple[Any, Any]]
    count: int | None = None  # of clients; none: len(data)
    lr: float = 0.1
    epochs: int = 1
    batch: int = 10
    momentum: float = 0.0
    proximal: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if any(buffer.is_floating_point() for buffer in self.model.buffers()):
            raise InvalidArgument("TorchClients: the model has buffers (BatchNorm?), which clients do not exchange")
        dtypes = sorted({str(parameter.dtype).removeprefix("torch.") for parameter in self.model.parameters()})
        if dtypes not in (["float32"], ["float64"]):
            raise InvalidArgument(
                f"TorchClients: the model has parameters of {', '.join(dtypes) or 'no type'}, wanted all float32 or "
                "all float64"
            )
        if self.epochs < 1 or self.batch < 1 or self.lr <= 0 or self.proximal < 0:
            raise InvalidArgument(
                "TorchClients: wanted epochs and batch of at least 1, lr above 0, proximal not below 0"
            )

    def __len__(self) -> int:
        return len(self.data) if self.count is None else self.count

    def samples(self, client: int) -> int:
        return len(self.data[client][1])

    def parameters(self) -> np.ndarray:
        from torch.nn.utils import parameters_to_vector

        return parameters_to_vector(self.model.parameters()).detach().cpu().numpy().copy()

    def assign(self, parameters: np.ndarray) -> None:
        """Puts a flat array of parameters into the model."""
        import torch
        from torch.nn.utils import vector_to_parameters

        with torch.no_grad():
            vector_to_parameters(torch.tensor(parameters), self.model.parameters())

    def train(self, client: int, parameters: np.ndarray, round: int) -> np.ndarray:
        import torch

        self.assign(parameters)
        weights = [w for w in self.model.parameters() if w.requires_grad]
        received = [w.detach().clone() for w in weights] if self.proximal else []
        velocities: list[Any] = [None] * len(weights)
        inputs, targets = self.data[client]
        random = np.random.default_rng([self.seed, round, client])
        for _ in range(self.epochs):
            order = torch.from_numpy(random.permutation(len(targets)))
            for rows in order.split(self.batch):
                loss = self.loss(self.model(inputs[rows]), targets[rows])
                # As torch.optim.SGD does it, which takes longer to make than a client of few samples to train.
                gradients = torch.autograd.grad(loss, weights, allow_unused=True)
                with torch.no_grad():
                    for i, (w, gradient) in enumerate(zip(weights, gradients, strict=True)):
                        if gradient is None:
                            continue
                        if self.proximal:
                            gradient = gradient.add(w - received[i], alpha=self.proximal)
                        if self.momentum:
                            before = velocities[i]
                            gradient = gradient if before is None else before.mul_(self.momentum).add_(gradient)
                            velocities[i] = gradient
                        w.add_(gradient, alpha=-self.lr)
        return self.parameters()
