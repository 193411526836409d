"""Making ranks alike: rank root's tensors and optimizer state, everywhere."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

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


def group_facts(optimizer: torch.optim.Optimizer, names: Mapping[int, str]) -> list[tuple[str, str]]:
    """For check_agreement: what broadcast_state_dict() needs alike besides the parameters.

    names: of each parameter, by its id.
    """
    groups = optimizer.param_groups
    places = [
        (f"parameter '{names[id(parameter)]}' of the optimizer", f"number {i} of group {g}")
        for g, group in enumerate(groups)
        for i, parameter in enumerate(group["params"])
    ]
    return [("the number of parameter groups", str(len(groups))), *places]


def broadcast_state_dict(comm: Communicator, optimizer: torch.optim.Optimizer, root: int) -> None:
    """Overwrites an optimizer's state and hyperparameters with rank `root`'s. Collective."""
    state = broadcast_object(comm, optimizer.state_dict() if comm.rank == root else None, root)
    if comm.rank != root:
        optimizer.load_state_dict(state)


def broadcast_object(comm: Communicator, thing: Any, root: int) -> Any:
    """Rank `root`'s, on every rank; what others pass is ignored. Collective."""
    payload = _pack(thing) if comm.rank == root else np.empty(0, np.uint8)
    count = np.array([payload.size], np.int64)
    comm.broadcast(count, root)
    if comm.rank != root:
        payload = np.empty(int(count[0]), np.uint8)
    comm.broadcast(payload, root)
    return thing if comm.rank == root else _unpack(payload)


def gather_objects(comm: Communicator, thing: Any, root: int) -> list[Any] | None:
    """Every rank's, in rank order, on rank `root`; None on the others. Collective."""
    payload = _pack(thing)
    counts = comm.allgather(np.array([payload.size], np.int64)).tolist()
    everything = comm.gather(payload, root=root, counts=counts)
    if comm.rank != root:
        return None
    return [_unpack(part) for part in np.split(everything, np.cumsum(counts)[:-1])]


def _pack(thing: Any) -> np.ndarray:
    file = io.BytesIO()
    torch.save(thing, file)
    return np.frombuffer(file.getvalue(), np.uint8).copy()


def _unpack(payload: np.ndarray) -> Any:
    # weights_only=False: hyperparameters may be of any type, and the bytes are our own ranks'.
    return torch.load(io.BytesIO(payload.tobytes()), weights_only=False)
