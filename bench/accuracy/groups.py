"""What a rank trains with: one of the libraries, set up the way its users do."""

from __future__ import annotations

import datetime
import os
from typing import Any, Protocol

import torch
from torch import nn

from .contestants import Contestant

PATIENCE = 60.0  # seconds for any one collective
FIRST = 1 << 18  # float32 elements summed before the clock starts, so that connections are open


class Group(Protocol):
    rank: int
    size: int

    def wrap(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, torch.optim.Optimizer]:
        """The model to call and the optimizer to step."""

    def sum(self, value: float) -> float:
        """Over ranks. A barrier as well."""

    def close(self) -> None:
        """The process may end here."""


class Gloo:
    """torch DDP over Gloo; the environment says which rank this is, as torchrun does."""

    def __init__(self, contestant: Contestant) -> None:
        from torch import distributed

        distributed.init_process_group("gloo", timeout=datetime.timedelta(seconds=PATIENCE))
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()
        self._contestant, self._distributed = contestant, distributed
        distributed.all_reduce(torch.zeros(FIRST))

    def wrap(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, torch.optim.Optimizer]:
        from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook

        # One bucket, as the model is small enough for. PowerSGD's hook waits for an operation inside the callback of
        # another: with two buckets it takes both of Gloo's threads, and nothing goes on.
        wrapped = nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True, bucket_cap_mb=25)
        if self._contestant.how == "bf16":
            # By another name: DDP refuses this hook without a GPU, while Gloo sums bfloat16 well.
            wrapped.register_comm_hook(None, lambda state, bucket: default_hooks.bf16_compress_hook(state, bucket))
        elif self._contestant.how == "fp16":
            wrapped.register_comm_hook(None, default_hooks.fp16_compress_hook)
        elif self._contestant.how == "powersgd":
            # As early as it allows, and guarded against columns of zeros, as its documentation advises.
            state = powerSGD_hook.PowerSGDState(
                None, start_powerSGD_iter=2, orthogonalization_epsilon=1e-8, **self._contestant.options
            )
            wrapped.register_comm_hook(state, powerSGD_hook.powerSGD_hook)
        return wrapped, optimizer

    def sum(self, value: float) -> float:
        total = torch.tensor([value], dtype=torch.float64)
        self._distributed.all_reduce(total)
        return float(total)

    def close(self) -> None:
        os._exit(0)  # its threads now and then abort while the process or the group is taken down in order


class Pycoll:
    """pycoll.DistributedOptimizer, or a local method, on the ranks that mpirun started."""

    def __init__(self, contestant: Contestant) -> None:
        import pycoll

        self._comm = pycoll.init(timeout=PATIENCE)
        self.rank, self.size = self._comm.rank, self._comm.size
        self._optimizer = contestant.local or "DistributedOptimizer"
        self._options: dict[str, Any] = {"every": contestant.agree} if contestant.local else {}
        if contestant.how:
            self._options["codec"] = getattr(pycoll, contestant.how)(**contestant.options)
        self._comm.allreduce(torch.zeros(FIRST))

    def wrap(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, torch.optim.Optimizer]:
        import pycoll

        wrapper = getattr(pycoll, self._optimizer)
        return model, wrapper(optimizer, model.named_parameters(), self._comm, **self._options)

    def sum(self, value: float) -> float:
        total = torch.tensor([value], dtype=torch.float64)
        self._comm.allreduce(total)
        return float(total)

    def close(self) -> None:
        self._comm.close()


def join(contestant: Contestant) -> Group:
    return Gloo(contestant) if contestant.library == "gloo" else Pycoll(contestant)
