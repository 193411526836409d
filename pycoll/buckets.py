"""Gradients side by side in symmetric memory, so that one allreduce averages many of them."""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from .errors import Error

if TYPE_CHECKING:
    from pycoll.comm import Communicator

Named = tuple[str, torch.Tensor]

ALIGNMENT = 64  # bytes: a gradient starts on its own cache line


@dataclass
class Slot:
    """One parameter's place in a bucket."""

    name: str
    parameter: torch.Tensor
    view: torch.Tensor  # of the bucket's memory, with the parameter's shape and strides
    ready: bool = False  # this round's gradient has come
    present: bool = False  # it came with the last round, on some rank
    densified: bool = False  # a sparse gradient has been seen
    version: int = 0  # of the gradient when it came

    def fill(self) -> bool:
        """Brings the gradient into the bucket; False (and zeros) where the parameter has none."""
        grad = self.parameter.grad
        if grad is None:
            self.view.zero_()
            return False
        if grad is not self.view:
            self.view.copy_(self._dense(grad.detach()))
            self.parameter.grad = self.view
        return True

    def _dense(self, grad: torch.Tensor) -> torch.Tensor:
        if not grad.is_sparse:
            return grad
        if not self.densified:
            self.densified = True
            text = f"parameter '{self.name}' has sparse gradients; they are averaged, and given to the optimizer, dense"
            warnings.warn(text, stacklevel=2)
        return grad.to_dense()


class Collector:
    """What gradients arrive in. Until it is finished they must stay as they are, which is checked."""

    slots: list[Slot]
    waiting: int  # gradients that this round still lacks
    _memory: torch.Tensor
    _version = 0

    def receive(self, slot: Slot) -> None:
        """Takes this round's gradient of one slot."""
        slot.fill()
        slot.ready = True
        self.waiting -= 1
        self.note()

    def note(self) -> None:
        """Remembers how gradients are. Torch counts what it writes, and views share their memory's counter."""
        self._version = self._memory._version

    def check_untouched(self) -> None:
        """Raises if somebody has changed gradients since: some may have been averaged then, and others not."""
        if self.waiting < len(self.slots) and self._memory._version != self._version:
            raise self.changed()

    def changed(self) -> Error:
        return Error(
            f"gradients were changed between backward() and step(), of '{self.slots[0].name}' or parameters beside it: "
            "call the optimizer's synchronize() before that"
        )

    @abstractmethod
    def launch(self) -> None:
        """Starts to average."""


class Bucket(Collector):
    """Parameters of one dtype, and one symmetric buffer for their gradients.

    Behind the gradients lies one element a parameter: 1 where this rank has a gradient, 0 where not. It is averaged
    with them, so that ranks learn without another message which parameters got a gradient nowhere. Those keep
    ``grad=None``, and the optimizer skips them as it would in a single process.

    momentum: above 0, gradients become velocities: momentum * velocity + mean, as torch.optim.SGD has them.
    """

    def __init__(self, comm: Communicator, named: Sequence[Named], momentum: float = 0.0) -> None:
        dtype = named[0][1].dtype
        step = ALIGNMENT // dtype.itemsize
        begins, count = [], 0
        for _, parameter in named:
            begins.append(count)
            count += math.ceil(parameter.numel() / step) * step
        self._memory: torch.Tensor = comm.empty(count + len(named), dtype)
        self._memory.zero_()  # the gaps between gradients are averaged too
        self._present = self._memory[count:]
        self._comm = comm
        self._work: Any = None
        self.slots = [
            Slot(name, parameter, view_of(self._memory, begin, parameter))
            for (name, parameter), begin in zip(named, begins, strict=True)
        ]
        self._momentum = momentum
        self.velocities = {slot.name: torch.zeros_like(slot.view) for slot in self.slots} if momentum else {}
        self.waiting = len(named)

    @property
    def bytes(self) -> int:
        return self._memory.numel() * self._memory.itemsize

    def launch(self) -> None:
        """Starts averaging. Gradients that have not come are taken as they are now: zeros where there is none."""
        self._present.fill_(1)
        if self.waiting:
            for i, slot in enumerate(self.slots):
                if not slot.ready and not slot.fill():
                    self._present[i] = 0
        self._work = self._comm.allreduce(self._memory, op="avg", wait=False)

    def finish(self) -> None:
        """Waits for the average and hands it to parameters that had no gradient here but had one elsewhere."""
        self._work.wait()
        self._work = None
        if self.waiting:
            for slot, present in zip(self.slots, self._present.tolist(), strict=True):
                if slot.parameter.grad is None and present:
                    slot.parameter.grad = slot.view
        for slot in self.slots:
            slot.ready = False
            if self._momentum and slot.parameter.grad is not None:
                velocity = self.velocities[slot.name].mul_(self._momentum).add_(slot.view)
                slot.view.copy_(velocity)
                drop_non_finite_(velocity)
        self.waiting = len(self.slots)


def drop_non_finite_(memory: torch.Tensor) -> None:
    """Zeros for what is not a number, or infinite: seen once, and not again in every later step."""
    memory.masked_fill_(~torch.isfinite(memory), 0)


def plan(
    named: Sequence[Named], bucket_bytes: int, kind_of: Callable[[torch.Tensor], Hashable] = lambda p: p.dtype
) -> list[list[Named]]:
    """Divides parameters into buckets, in reverse order: a backward pass reaches the last ones first.

    A bucket holds parameters of one kind (their dtype) and at most `bucket_bytes` bytes, or one larger parameter.
    Buckets are ordered by their last parameter, so by when a backward pass can have filled them.
    """
    closed: list[tuple[int, list[Named]]] = []
    filling: dict[Hashable, tuple[int, list[Named]]] = {}
    last: dict[Hashable, int] = {}
    for i, (name, parameter) in enumerate(reversed(named)):
        kind, size = kind_of(parameter), parameter.numel() * parameter.dtype.itemsize
        held, bucket = filling.get(kind, (0, []))
        if bucket and held + size > bucket_bytes:
            closed.append((last[kind], bucket))
            held, bucket = 0, []
        bucket.append((name, parameter))
        filling[kind] = (held + size, bucket)
        last[kind] = i
    closed += [(last[kind], bucket) for kind, (_, bucket) in filling.items()]
    return [bucket for _, bucket in sorted(closed, key=lambda entry: entry[0])]


def is_dense(tensor: torch.Tensor) -> bool:
    """True if the elements fill their memory without gap or overlap, in whatever order (channels_last, transposed)."""
    expected = 1
    for stride, extent in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if extent != 1:
            if stride != expected:
                return False
            expected *= extent
    return True


def view_of(memory: torch.Tensor, begin: int, parameter: torch.Tensor) -> torch.Tensor:
    """The parameter's place in flat memory, with its shape, and its strides where they leave no gaps."""
    # A gradient with its parameter's strides keeps the optimizer's elementwise loops fast.
    if is_dense(parameter):
        return memory.as_strided(parameter.shape, parameter.stride(), memory.storage_offset() + begin)
    return memory[begin : begin + parameter.numel()].view(parameter.shape)
