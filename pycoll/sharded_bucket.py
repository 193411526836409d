"""Parameters side by side in symmetric memory, of which every rank updates its own chunk."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from .buckets import Collector, Named, Slot, view_of
from .errors import Error

if TYPE_CHECKING:
    from .comm import Communicator

# Bytes: two vectors of AVX-512. Torch's elementwise loops take so much at once, and the rest of an array one by one,
# which may round differently. Parameters, and the parts of them that ranks have, begin at multiples of it.
LINE = 128


@dataclass(frozen=True)
class Layout:
    """Where parameters begin in a flat array, in elements, and how many elements of it each rank has."""

    begins: list[int]
    counts: list[int]

    @property
    def count(self) -> int:
        return sum(self.counts)


def by_elements(parameters: Sequence[torch.Tensor], ranks: int) -> Layout:
    """Even chunks, wherever they cut parameters."""
    line = LINE // parameters[0].dtype.itemsize
    ends = list(itertools.accumulate(_lines(p, line) for p in parameters))
    chunk = -(-ends[-1] // ranks) * line
    return Layout([0] + [end * line for end in ends[:-1]], [chunk] * ranks)


def by_parameters(parameters: Sequence[torch.Tensor], loads: list[int]) -> Layout:
    """Whole parameters: each, the largest first, to the rank that has the least. `loads`: the ranks' bytes so far."""
    itemsize = parameters[0].dtype.itemsize
    line = LINE // itemsize
    members: list[list[int]] = [[] for _ in loads]
    for i in sorted(range(len(parameters)), key=lambda i: -parameters[i].numel()):
        rank = loads.index(min(loads))
        members[rank].append(i)
        loads[rank] += parameters[i].numel() * itemsize
    begins, counts, at = [0] * len(parameters), [], 0
    for own in members:
        first = at
        for i in own:
            begins[i] = at
            at += _lines(parameters[i], line) * line
        at = max(at, first + line)  # nobody's chunk is empty: empty arrays are not symmetric
        counts.append(at - first)
    return Layout(begins, counts)


def _lines(parameter: torch.Tensor, line: int) -> int:
    return max(1, -(-parameter.numel() // line))


@dataclass
class Piece:
    """The part of a parameter that this rank updates: elements begin to end, in the order of memory."""

    slot: Slot
    begin: int
    end: int
    own: torch.Tensor  # what the wrapped optimizer steps: of the parameter's shape if it is all of it, else flat
    mean: torch.Tensor  # of its gradient


class Stage:
    """Symmetric arrays that gradients pass through on their way to their owners, in turn."""

    def __init__(self, comm: Communicator, count: int, dtype: torch.dtype, arrays: int) -> None:
        self.arrays = [comm.empty(count, dtype) for _ in range(arrays)]
        self._works: list[Any] = [None] * arrays
        self._next = 0

    def take(self) -> torch.Tensor:
        """The array that was used longest ago; waits until it can be written."""
        if self._works[self._next] is not None:
            self._works[self._next].wait()
        return self.arrays[self._next]

    def use(self, work: Any) -> None:
        """Says which operation reads the array that was taken."""
        self._works[self._next] = work
        self._next = (self._next + 1) % len(self.arrays)


def stages_of(
    comm: Communicator, planned: Sequence[Sequence[Named]], layouts: Sequence[Layout]
) -> dict[torch.dtype, Stage]:
    """For all buckets of a dtype two arrays: one is filled while the other is on its way."""
    largest: dict[torch.dtype, int] = {}
    for members, layout in zip(planned, layouts, strict=True):
        dtype = members[0][1].dtype
        largest[dtype] = max(largest.get(dtype, 0), layout.count)
    return {dtype: Stage(comm, count, dtype, 2) for dtype, count in largest.items()}


class ShardedBucket(Collector):
    """Parameters of one group and dtype: means of gradients are scattered over ranks, updated parameters gathered.

    Parameters become views of the bucket's memory, in which this rank updates its chunk and the others' arrive.

    keeps: the stage is this bucket's alone, and gradients are reduced where they are; else they leave it, and the rank
    has memory for the means of its chunk only.
    """

    def __init__(self, comm: Communicator, named: Sequence[Named], layout: Layout, stage: Stage, keeps: bool) -> None:
        self._comm, self._counts, self._begins, self._stage = comm, layout.counts, layout.begins, stage
        first = sum(self._counts[: comm.rank])
        chunk = slice(first, first + self._counts[comm.rank])
        self._memory = comm.empty(layout.count, named[0][1].dtype)
        self._chunk = self._memory[chunk]
        self._means = stage.arrays[0][chunk] if keeps else torch.zeros_like(self._chunk)
        self.slots, self._homes, self.pieces = [], [], []
        for (name, parameter), begin in zip(named, self._begins, strict=True):
            home = view_of(self._memory, begin, parameter)
            home.copy_(parameter.detach())
            parameter.data = home
            self._homes.append(home)
            self.slots.append(Slot(name, parameter, view_of(stage.arrays[0], begin, parameter)))
            end = begin + parameter.numel()
            if max(begin, chunk.start) < min(end, chunk.stop) or (begin == end and chunk.start <= begin < chunk.stop):
                self.pieces.append(self._cut(self.slots[-1], begin - first, end - first))
        self.waiting = len(named)
        self._work: Any = None

    def _cut(self, slot: Slot, begin: int, end: int) -> Piece:
        """What of a parameter lies in this rank's chunk, from whose beginning `begin` and `end` count."""
        inside = slice(max(begin, 0), min(end, self._chunk.numel()))
        if inside == slice(begin, end):
            own, mean = (view_of(memory, begin, slot.parameter) for memory in (self._chunk, self._means))
        else:
            own, mean = self._chunk[inside], self._means[inside]
        return Piece(slot, inside.start - begin, inside.stop - begin, torch.nn.Parameter(own), mean)

    # Gradients.

    def receive(self, slot: Slot) -> None:
        slot.ready = True
        self.waiting -= 1
        slot.version = slot.parameter.grad._version  # type: ignore[union-attr]

    def note(self) -> None:
        pass  # each slot has its version

    def check_untouched(self) -> None:
        if self._work is not None:
            return  # gradients have left
        for slot in self.slots:
            if slot.ready and (slot.parameter.grad is None or slot.parameter.grad._version != slot.version):
                raise self.changed()

    def launch(self) -> None:
        """Starts to scatter means over the ranks. Gradients that have not come are taken as they are now."""
        memory = self._stage.take()[: self._memory.numel()]
        for slot, begin in zip(self.slots, self._begins, strict=True):
            if slot.view.untyped_storage().data_ptr() != memory.untyped_storage().data_ptr():
                slot.view = view_of(memory, begin, slot.parameter)
            slot.present = slot.fill()
            slot.parameter.grad = None
        self._work = self._comm.reduce_scatter(memory, self._means, "avg", counts=self._counts, wait=False)
        self._stage.use(self._work)

    def finish(self) -> None:
        """Waits for the means of this rank's pieces, of parameters that are present."""
        self._work.wait()
        self._work = None
        for slot in self.slots:
            slot.ready = False
        self.waiting = len(self.slots)
        for piece in self.pieces:
            piece.own.grad = piece.mean if piece.slot.present else None

    def gather_gradients(self) -> None:
        """Gives every rank all means. Only where the bucket keeps them."""
        self._comm.allgather(self._means, self._stage.arrays[0], counts=self._counts)
        for slot in self.slots:
            slot.parameter.grad = slot.view if slot.present else None

    def take_back(self) -> None:
        """Of gradients that everybody has seen, and may have replaced, takes this rank's pieces."""
        for piece in self.pieces:
            piece.own.grad = piece.mean if piece.slot.fill() else None

    # Parameters.

    def bring_home(self) -> None:
        """Takes the values of parameters that were given other memory: ``parameter.data = ...``."""
        for slot, home in zip(self.slots, self._homes, strict=True):
            if slot.parameter.data_ptr() == home.data_ptr():
                continue
            if (slot.parameter.dtype, slot.parameter.shape) != (home.dtype, home.shape):
                raise Error(f"parameter '{slot.name}' has changed its type or shape since the optimizer was built")
            home.copy_(slot.parameter.detach())
            slot.parameter.data = home

    def gather(self) -> Any:
        """Starts to give every rank all parameters."""
        torch.autograd.graph.increment_version([slot.parameter for slot in self.slots])
        return self._comm.allgather(self._chunk, self._memory, counts=self._counts, wait=False)

    def release(self) -> None:
        """Gives parameters memory of their own."""
        for slot in self.slots:
            slot.parameter.data = slot.parameter.detach().clone()
