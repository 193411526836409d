"""Making ranks alike: rank root's tensors and optimizer state, everywhere."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from .comm import Communicator


def broadcast_tensors(comm: Communicator, tensors: Iterable[torch.Tensor], root: int) -> None:
    """Overwrites CPU tensors with rank `root`'s. Collective."""
    for tensor in tensors:
        data = tensor.detach()
        if data.is_contiguous():
            comm.broadcast(data, root)
        else:
            staged = data.contiguous()
            comm.broadcast(staged, root)
            data.copy_(staged)


def broadcast_state_dict(comm: Communicator, optimizer: torch.optim.Optimizer, root: int) -> None:
    """Overwrites an optimizer's state and hyperparameters with rank `root`'s. Collective."""
    payload = np.empty(0, np.uint8)
    if comm.rank == root:
        file = io.BytesIO()
        torch.save(optimizer.state_dict(), file)
        payload = np.frombuffer(file.getvalue(), np.uint8).copy()
    count = np.array([payload.size], np.int64)
    comm.broadcast(count, root)
    if comm.rank != root:
        payload = np.empty(int(count[0]), np.uint8)
    comm.broadcast(payload, root)
    if comm.rank != root:
        # weights_only=False: hyperparameters may be of any type, and the bytes are our own rank's.
        optimizer.load_state_dict(torch.load(io.BytesIO(payload.tobytes()), weights_only=False))
