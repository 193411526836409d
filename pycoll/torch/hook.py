"""Compression inside DistributedDataParallel: a communication hook with error feedback.

    model = DistributedDataParallel(net)
    state = pycoll.torch.state(codec=pycoll.TopK(0.01), named_parameters=net.named_parameters())
    model.register_comm_hook(state, pycoll.torch.compress_hook)

The process group may be of any backend: gradients travel over a communicator of pycoll's own, between the same ranks.
"""

# No postponed annotations: DDP compares those of the hook with its own types.
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d as c10d

from ..codec import Codec
from ..comm import Communicator
from ..compression import Compression, compression_of
from ..errors import InvalidArgument
from ..feedback import Feedback
from ..powersgd import PowerSGD
from .work import Work


@dataclass
class _Bucket:
    """The compressed gradients of one of DDP's buckets."""

    parameters: list[torch.Tensor]
    feedback: Feedback | None


class HookState:
    """What compress_hook goes by, and what each parameter has not sent yet. Made by :func:`state`."""

    def __init__(
        self,
        codec: Codec | Compression,
        named_parameters: Iterable[tuple[str, torch.Tensor]] = (),
        process_group: Any = None,
        timeout: float = 300.0,
    ) -> None:
        how = compression_of(codec)
        if how is None or how.momentum or how.clip_norm:
            raise InvalidArgument(
                f"state: codec is {codec!r}, wanted a codec, or a Compression without momentum and clip_norm: a hook "
                "sees one bucket at a time"
            )
        self._how, self._group, self._timeout = how, process_group, timeout
        self._named = list(named_parameters)
        self._residuals: dict[torch.Tensor, torch.Tensor] = {}  # by parameter: parts of the buckets' residuals
        self._buckets: dict[int, _Bucket] = {}  # by DDP's number
        self._communicator: Communicator | None = None
        self._step = 0  # backward passes

    @property
    def communicator(self) -> Communicator:
        """Over the group's ranks; made at the first use, by all of them."""
        if self._communicator is None:
            from .backend import make_group

            group = self._group or dist.group.WORLD
            store = dist.PrefixStore("pycoll.hook", c10d._get_process_group_store(group))
            rank, size = dist.get_rank(group), dist.get_world_size(group)
            self._communicator = make_group(store, rank, size, self._timeout, "hook").communicator
        return self._communicator

    def state_dict(self) -> dict[str, Any]:
        """What this rank has not sent yet, by parameter name: it differs from rank to rank, so each saves its own."""
        self._want_names()
        comm = self.communicator
        residuals = {
            name: self._residuals[parameter].detach().clone().view(parameter.shape)
            for name, parameter in self._named
            if parameter in self._residuals
        }
        return {"rank": comm.rank, "ranks": comm.size, "step": self._step, "residuals": residuals}

    def load_state_dict(self, states: dict[str, Any] | Sequence[dict[str, Any]]) -> None:
        """Takes this rank's state, or those of all ranks that there were: what ranks that are gone have not sent is
        added to what those that are there have not."""
        self._want_names()
        comm = self.communicator
        self._buckets, self._residuals = {}, {}
        for state in [states] if isinstance(states, dict) else states:
            self._step = max(self._step, state["step"])
            if state["rank"] % comm.size != comm.rank:
                continue
            for name, parameter in self._named:
                if name in state["residuals"]:
                    saved = state["residuals"][name].reshape(-1)
                    known = self._residuals.get(parameter)
                    self._residuals[parameter] = saved.clone() if known is None else known + saved

    def _want_names(self) -> None:
        if not self._named:
            raise InvalidArgument("state: a checkpoint needs names: pass named_parameters=model.named_parameters()")

    def _bucket(self, index: int, parameters: list[torch.Tensor]) -> _Bucket:
        """The bucket of these parameters. When DDP has made its buckets anew, residuals move with their parameters."""
        known = self._buckets.get(index)
        if known and list(map(id, known.parameters)) == list(map(id, parameters)):
            return known
        feedback = None
        if self._how.feedback and parameters:
            dtype = torch.bfloat16 if self._how.residual == "bf16" else torch.float32
            parts = [self._residuals.get(p, torch.zeros(p.numel(), dtype=dtype)) for p in parameters]
            residual = torch.cat(parts).to(dtype)
            feedback = Feedback(residual=residual)
            self._residuals.update(zip(parameters, residual.split([p.numel() for p in parameters]), strict=True))
        self._buckets[index] = _Bucket(parameters, feedback)
        return self._buckets[index]

    def _start(self, bucket: Any) -> Any:
        parameters, buffer = bucket.parameters(), bucket.buffer()
        gradients = dict(zip(parameters, buffer.split([p.numel() for p in parameters]), strict=True))
        lossy = [p for p in parameters if self._how.takes(p)]
        dense = [gradients[p] for p in parameters if not self._how.takes(p)]
        works = []
        if dense:
            works.append(self.communicator.allreduce(dense, op="avg", wait=False))
        if lossy:
            own = self._bucket(bucket.index(), lossy)
            codec = self._how.codec.at(self._step)
            # PowerSGD multiplies between two operations, which all ranks must start in one order: here, at once.
            matrices = isinstance(codec, PowerSGD)
            work = self.communicator.allreduce(
                [gradients[p].view(p.shape) if matrices else gradients[p] for p in lossy],
                op="avg",
                codec=codec,
                feedback=own.feedback,
                step=self._step,
                everywhere=self._how.everywhere,
                wait=matrices,
            )
            if not matrices:
                works.append(work)
        self._step += bucket.is_last()
        return Work(works, [buffer]).get_future().then(lambda future: future.value()[0])


def state(codec: Codec | Compression, **settings: Any) -> HookState:
    """The state for compress_hook.

    Args:
        codec: one of pycoll.codec, or a pycoll.Compression that says more: feedback, residual, everywhere, what stays
            dense. Momentum and clipping need all buckets at once, and are refused.
        named_parameters: the model's, for state_dict() and load_state_dict(): residuals are kept by parameter, and
            saved by name. Optional.
        process_group: DDP's, of any backend; the default group if none is given.
        timeout: seconds, of every operation.
    """
    return HookState(codec, **settings)


def compress_hook(state: HookState, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    """A hook for DistributedDataParallel.register_comm_hook(): averages gradients over ranks, compressed.

    What is left out stays on this rank, by parameter, also when DDP makes its buckets anew, and is added the next time.
    """
    return state._start(bucket)
