"""How an optimizer compresses gradients: which of them, and what happens around the codec."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .codec import Codec
from .errors import InvalidArgument
from .powersgd import PowerSGD

if TYPE_CHECKING:
    from .buckets import Slot
    from .comm import Communicator


@dataclass(frozen=True)
class Compression:
    """A codec, and what a DistributedOptimizer does around it.

    codec: one of pycoll.codec. feedback: error feedback; what a step leaves out is added to the next one. residual:
    "fp32", or "bf16" for half its memory. everywhere: encodes inside nodes too, not only between them.

    dense_below: parameters of fewer bytes stay dense, and so do those with fewer than two dimensions (biases and
    normalisation) unless dense_vectors is False, and all that are not float32, float16 or bfloat16.

    momentum: above 0, momentum correction (Deep Gradient Compression, Lin et al., arXiv 1712.01887, 3.1): momentum
    is gathered on each rank before compression, velocity = momentum * velocity + gradient, and velocities are sent; for
    what stays dense, after averaging. The wrapped optimizer then must not have momentum of its own. masking: velocity
    is cleared where it was sent (3.2).

    clip_norm: above 0, gradients are clipped by their global norm over all parameters, compressed or not. clip:
    "before" clips each rank's own gradient before the residual is added (all buckets then start in step()); "after"
    clips the mean, as a single process does. With clip="before", Deep Gradient Compression's local clipping is
    clip_norm / sqrt(ranks).
    """

    codec: Codec
    feedback: bool = True
    residual: str = "fp32"
    everywhere: bool = False
    dense_below: int = 4096
    dense_vectors: bool = True
    momentum: float = 0.0
    masking: bool = True
    clip_norm: float = 0.0
    clip: str = "after"

    def __post_init__(self) -> None:
        if not isinstance(self.codec, Codec):
            raise InvalidArgument(f"Compression: codec is {self.codec!r}, wanted one of pycoll.codec")
        if self.residual not in ("fp32", "bf16"):
            raise InvalidArgument(f'Compression: residual is {self.residual!r}, wanted "fp32" or "bf16"')
        if self.clip not in ("before", "after"):
            raise InvalidArgument(f'Compression: clip is {self.clip!r}, wanted "before" or "after"')
        if not (is_number(self.momentum) and 0 <= self.momentum < 1):
            raise InvalidArgument(f"Compression: momentum is {self.momentum!r}, wanted at least 0 and below 1")
        for what, got in (("clip_norm", self.clip_norm), ("dense_below", self.dense_below)):
            if not (is_number(got) and got >= 0):
                raise InvalidArgument(f"Compression: {what} is {got!r}, wanted at least 0")

    def takes(self, parameter: torch.Tensor) -> bool:
        """True if the parameter's gradient is compressed."""
        if parameter.dtype not in (torch.float32, torch.float16, torch.bfloat16):
            return False
        if self.dense_vectors and parameter.dim() < 2:
            return False
        if isinstance(self.codec, PowerSGD) and parameter.dtype != torch.float32:
            return False
        return parameter.numel() * parameter.dtype.itemsize >= self.dense_below


def is_number(x: Any) -> bool:
    """True for what can be compared with numbers."""
    return isinstance(x, (int, float)) and not isinstance(x, bool)


def compression_of(codec: Any) -> Compression | None:
    """What the argument `codec` of an optimizer means. Raises InvalidArgument."""
    if codec is None or isinstance(codec, Compression):
        return codec
    if not isinstance(codec, Codec):
        raise InvalidArgument(
            f"codec is {codec!r}, wanted one of pycoll.codec, pycoll.TopK(0.01) for example, or a pycoll.Compression"
        )
    return Compression(codec)


def clip_(gradients: Iterable[torch.Tensor], norm: float) -> None:
    """Scales gradients so that their norm together is at most `norm`, as torch.nn.utils.clip_grad_norm_ does."""
    present = list(gradients)
    total = torch.nn.utils.get_total_norm(present)
    factor = torch.clamp(norm / (total + 1e-6), max=1.0)
    for gradient in present:
        gradient.mul_(factor)


class Presence:
    """Which parameters of compressed buckets have a gradient on some rank: asked for exactly, beside lossy codecs."""

    def __init__(self, comm: Communicator, slots: Sequence[Slot]) -> None:
        self._comm = comm
        self._slots = slots
        self._seen = np.zeros(len(slots), np.uint8)  # has ever had one: its residual may still be on its way
        self._here = np.zeros(len(slots), np.uint8)
        self._all_here = False
        self._work: Any = None

    def seen(self) -> list[str]:
        """Names of the parameters that have had a gradient on this rank."""
        return [slot.name for slot, seen in zip(self._slots, self._seen, strict=True) if seen]

    def note(self, names: Container[str]) -> None:
        """Says that these had one before: in the run that a checkpoint is of."""
        for i, slot in enumerate(self._slots):
            self._seen[i] |= slot.name in names

    def launch(self) -> None:
        """Starts to ask, unless all have had one: all ranks know that, and it stays so."""
        if self._all_here:
            return
        for i, slot in enumerate(self._slots):
            self._seen[i] |= slot.parameter.grad is not None
        self._here[:] = self._seen
        self._work = self._comm.allreduce(self._here, op="max", wait=False)

    def finish(self) -> None:
        """Hands the mean to parameters that have no gradient here but have one elsewhere."""
        if self._work:
            self._work.wait()
            self._work = None
            self._all_here = bool(self._here.all())
        for slot, present in zip(self._slots, self._here, strict=True):
            if slot.parameter.grad is None and present:
                slot.parameter.grad = slot.view


__all__ = ["Compression"]
