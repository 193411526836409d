"""Gradients side by side that travel encoded, with what error feedback keeps of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from .buckets import Bucket, Collector, Named, Slot, drop_non_finite_, view_of
from .codec import Codec, RandomK, TopK
from .compression import Compression
from .feedback import Feedback
from .powersgd import PowerSGD
from .replicate import broadcast_tensors
from .settings import log

if TYPE_CHECKING:
    from .comm import Communicator


class CompressedBucket(Collector):
    """Parameters of one dtype without gaps, their mean by an encoded allreduce, and the residual of each."""

    def __init__(self, comm: Communicator, named: Sequence[Named], how: Compression) -> None:
        self._comm, self._how = comm, how
        self._memory = torch.zeros(sum(p.numel() for _, p in named), dtype=named[0][1].dtype)
        self.slots, self._ranges, begin = [], [], 0
        for name, parameter in named:
            self.slots.append(Slot(name, parameter, view_of(self._memory, begin, parameter)))
            self._ranges.append(slice(begin, begin + parameter.numel()))
            begin += parameter.numel()
        residual_dtype = torch.bfloat16 if how.residual == "bf16" else torch.float32
        self.residual = torch.zeros(begin, dtype=residual_dtype) if how.feedback else None
        self._feedback = Feedback(residual=self.residual)
        self.velocity = torch.zeros(begin) if how.momentum else None
        self._meant: Any = None  # velocity + residual of the operation under way, where what is sent is masked
        self._work: Any = None
        self.waiting = len(named)
        self._dense = False  # some sparse payload of the last operation travelled dense
        self.step = 0  # number of the next operation

    def launch(self) -> None:
        """Starts averaging. Gradients that have not come are taken as they are now: zeros where there is none."""
        if self.waiting:
            for slot in self.slots:
                if not slot.ready:
                    slot.fill()
        if self.velocity is not None:
            self.velocity.mul_(self._how.momentum).add_(self._memory)
            self._memory.copy_(self.velocity)
        codec = self._how.codec.at(self.step)
        if self.velocity is not None and self.residual is not None and self._how.masking and is_sparse(codec):
            self._meant = self.velocity + self.residual
        # PowerSGD is about matrices; for others the bucket is one array.
        x = [self._matrix(i) for i in range(len(self.slots))] if isinstance(codec, PowerSGD) else self._memory
        self._work = self._comm.allreduce(
            x,
            op="avg",
            codec=codec,
            feedback=self._feedback,
            step=self.step,
            everywhere=self._how.everywhere,
            wait=False,
        )
        self.step += 1

    def finish(self) -> None:
        """Waits for the mean."""
        self._work.wait()
        self._work = None
        self._log_density()
        if self.velocity is not None:
            drop_non_finite_(self.velocity)
        if self._meant is not None and self.residual is not None and self.velocity is not None:
            # What was sent has left the residual, but for what its format rounds away.
            sent = (self.residual.abs() * 2 <= self._meant.abs()) & (self._meant != 0)
            self.velocity.masked_fill_(sent, 0)
            self._meant = None
        for slot in self.slots:
            slot.ready = False
        self.waiting = len(self.slots)

    def _log_density(self) -> None:
        """Says once when sparse chunks have become cheaper dense, and once when they are sparse again."""
        report = self._feedback.report
        dense = report["dense_payloads"] > 0
        if dense != self._dense:
            self._dense = dense
            names = f"{self.slots[0].name} to {self.slots[-1].name}"
            density = report["sent"] / max(1, self._memory.numel())
            what = "some payloads are shorter dense, and travel so" if dense else "all payloads are sparse again"
            log.info("rank %d, bucket %s: at density %.3f %s", self._comm.rank, names, density, what)

    def stats(self) -> dict[str, Any]:
        """How the last operation went, and what is kept."""
        report = dict(self._feedback.report)
        count = self._memory.numel()
        norm = float(torch.linalg.vector_norm(self.residual, dtype=torch.float64)) if self.residual is not None else 0.0
        return {
            "parameters": [slot.name for slot in self.slots],
            "elements": count,
            "density": report["kept"] / count if count else 0.0,
            "residual_norm": norm,
            **report,
        }

    def state_of(self, memory: torch.Tensor) -> dict[str, torch.Tensor]:
        """Parts of the residual or the velocity by parameter name, in its shape; copies."""
        parts = zip(self.slots, self._ranges, strict=True)
        return {slot.name: view_of(memory, part.start, slot.parameter).detach().clone() for slot, part in parts}

    def add_state(self, memory: torch.Tensor, state: dict[str, torch.Tensor]) -> None:
        """Adds what state_of() gave, of this or another rank."""
        for slot, part in zip(self.slots, self._ranges, strict=True):
            if slot.name in state:
                place = view_of(memory, part.start, slot.parameter)
                place.add_(state[slot.name].to(memory.dtype))

    def _matrix(self, i: int) -> torch.Tensor:
        return self._memory[self._ranges[i]].view(self.slots[i].parameter.shape)


def is_sparse(codec: Codec) -> bool:
    """True if the codec sends some elements only."""
    return isinstance(codec, (TopK, RandomK))


def save_feedback(comm: Communicator, buckets: Sequence[Bucket | CompressedBucket]) -> dict[str, Any]:
    """What this rank has not sent yet, and its momentum, by parameter name."""
    residuals, velocities, step = {}, {}, 0
    for bucket in buckets:
        if isinstance(bucket, Bucket):
            velocities.update({name: velocity.clone() for name, velocity in bucket.velocities.items()})
            continue
        step = bucket.step
        if bucket.residual is not None:
            residuals.update(bucket.state_of(bucket.residual))
        if bucket.velocity is not None:
            velocities.update(bucket.state_of(bucket.velocity))
    return {"rank": comm.rank, "ranks": comm.size, "step": step, "residuals": residuals, "velocities": velocities}


def load_feedback(
    comm: Communicator, buckets: Sequence[Bucket | CompressedBucket], states: Sequence[dict[str, Any]]
) -> None:
    """Takes the residuals that are this rank's: those saved by ranks that equal it modulo the number of ranks.

    Velocities of dense buckets are alike on all ranks.
    """
    for bucket in buckets:
        if isinstance(bucket, Bucket):
            for name, velocity in bucket.velocities.items():
                saved = states[0]["velocities"].get(name) if states else None
                velocity.zero_() if saved is None else velocity.copy_(saved)
            continue
        for memory, key in ((bucket.residual, "residuals"), (bucket.velocity, "velocities")):
            if memory is None:
                continue
            memory.zero_()
            for state in states:
                if state["rank"] % comm.size == comm.rank:
                    bucket.add_state(memory, state[key])
        bucket.step = max((state["step"] for state in states), default=0)


def broadcast_feedback(comm: Communicator, buckets: Sequence[Bucket | CompressedBucket], root: int) -> None:
    """Makes alike what must be alike: numbers of steps, and velocities of dense buckets. Collective."""
    for bucket in buckets:
        if isinstance(bucket, Bucket):
            broadcast_tensors(comm, bucket.velocities.values(), root)
            continue
        step = torch.tensor([bucket.step])
        broadcast_tensors(comm, [step], root)
        bucket.step = int(step)
