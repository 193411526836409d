"""torch's tensors as arrays of the core: in place where that can be, else copies that go back when all is done."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..errors import InvalidArgument

#: Element types that the core knows. Others can be moved, as bytes, but not reduced.
KNOWN = {
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128, torch.bool),
    *(torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8),
    *(getattr(torch, name) for name in ("uint16", "uint32", "uint64") if hasattr(torch, name)),  # since torch 2.3
}


def lies_ready(tensor: torch.Tensor) -> bool:
    """True if the core can read and write the tensor where it is."""
    return (
        tensor.is_cpu
        and tensor.is_contiguous()
        and not tensor.requires_grad
        and tensor.dtype in KNOWN
        and not (tensor.is_conj() or tensor.is_neg())
    )


def width(tensor: torch.Tensor) -> int:
    """Elements of the core in one of the tensor's: its bytes, if it travels as bytes."""
    return 1 if tensor.dtype in KNOWN else tensor.element_size()


class Loan:
    """The tensors of one operation. What is not usable in place is copied: here before, by `give_back` after it."""

    __slots__ = ("_copies", "inputs")

    def __init__(self) -> None:
        self._copies: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.inputs: list[torch.Tensor] = []  # what is read

    def read(self, tensor: torch.Tensor) -> torch.Tensor:
        """For operations that read the tensor."""
        self.inputs.append(tensor)
        return _read(tensor)

    def write(self, tensor: torch.Tensor) -> torch.Tensor:
        """For operations that overwrite the tensor: in place, or new memory of unknown contents."""
        if lies_ready(tensor):
            return tensor
        if tensor.is_cpu and tensor.is_contiguous() and not (tensor.is_conj() or tensor.is_neg()):
            return _as_known(tensor.detach())
        copy = torch.empty(tensor.shape, dtype=tensor.dtype)
        self._copies.append((tensor, copy))
        return _as_known(copy)

    def update(self, tensor: torch.Tensor) -> torch.Tensor:
        """For operations in place."""
        self.inputs.append(tensor)
        place = self.write(tensor)
        if self._copies and self._copies[-1][0] is tensor:
            self._copies[-1][1].copy_(tensor.detach())
        return place

    def read_all(self, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        """The elements of all tensors, one after the other."""
        _want_one_type(tensors)
        self.inputs += tensors
        joined = _joined(tensors)
        return torch.cat([_read(t).reshape(-1) for t in tensors]) if joined is None else joined

    def write_all(self, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        """Memory for the elements of all tensors, one after the other."""
        _want_one_type(tensors)
        joined = _joined(tensors)
        if joined is not None:
            return joined
        whole = torch.empty(sum(t.numel() for t in tensors), dtype=tensors[0].dtype)
        for tensor, part in zip(tensors, whole.split([t.numel() for t in tensors]), strict=True):
            self._copies.append((tensor, part.view(tensor.shape)))
        return _as_known(whole)

    def give_back(self) -> None:
        """What was written into copies goes into the tensors."""
        if not self._copies:
            return
        with torch.no_grad():
            for tensor, copy in self._copies:
                tensor.copy_(copy)
        self._copies = []


def _want_one_type(tensors: Sequence[torch.Tensor]) -> None:
    if any(t.dtype != tensors[0].dtype for t in tensors):
        raise InvalidArgument(f"got tensors of {', '.join(str(t.dtype) for t in tensors)}, wanted one element type")


def _read(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if lies_ready(tensor) else _as_known(_plain(tensor))


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()


def _as_known(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.dtype in KNOWN else tensor.reshape(-1).view(torch.uint8)


def _joined(tensors: Sequence[torch.Tensor]) -> torch.Tensor | None:
    """The tensors as one, if they lie in memory one behind the other."""
    first = tensors[0]
    end, storage = first.data_ptr(), first.untyped_storage()._cdata
    for tensor in tensors:
        if not lies_ready(tensor) or tensor.data_ptr() != end:
            return None
        if tensor.untyped_storage()._cdata != storage:
            return None
        end += tensor.numel() * tensor.element_size()
    return first.as_strided((sum(t.numel() for t in tensors),), (1,))
