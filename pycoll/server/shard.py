"""The pieces that one server holds, and the torch optimizer that updates them. Nothing here communicates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from ..codec import Codec, decode, encode
from .pieces import Entry, Loaded, Piece, as_rows
from .state import cut_state, options_of


class Shard:
    """Parameters in float32, one tensor a piece.

    version: the number of updates so far. With a codec for pulls, a worker is sent what has changed since its last
    pull, encoded: `held` is what it then has, to the bit, so what encoding leaves out is in the next difference.
    """

    def __init__(
        self,
        pieces: Iterable[Piece],
        optimizer: torch.optim.Optimizer,
        parameters: Sequence[torch.Tensor],
        workers: Iterable[int],
        codec: Codec | None = None,
    ) -> None:
        self.version = 0
        self.pieces = {piece.index: piece for piece in pieces}
        self._codec = codec
        self.values = {
            i: piece.of(parameters[piece.parameter].detach()).to(torch.float32, copy=True).contiguous()
            for i, piece in self.pieces.items()
        }
        self._optimizer = self._rebuild(optimizer, parameters)
        encoded = [i for i, piece in self.pieces.items() if codec is not None and piece.compressed]
        self._held = {worker: {i: self._rows(i, None).copy() for i in encoded} for worker in workers}
        self._pulls = dict.fromkeys(self._held, -1)
        self._collected: dict[int, dict[int, torch.Tensor]] = {}

    def _rebuild(self, optimizer: torch.optim.Optimizer, parameters: Sequence[torch.Tensor]) -> torch.optim.Optimizer:
        """The same optimizer over these pieces, its state cut as the parameters are."""
        numbers = {id(parameter): i for i, parameter in enumerate(parameters)}
        groups, states = [], {}
        for group in optimizer.param_groups:
            tensors = []
            for parameter in group["params"]:
                for i, piece in self.pieces.items():
                    if piece.parameter == numbers[id(parameter)]:
                        tensors.append(self.values[i])
                        states[i] = cut_state(optimizer.state.get(parameter, {}), piece, parameter)
            groups.append({**options_of(group), "params": tensors})
        mine = type(optimizer)(groups)
        for i, state in states.items():
            if state:
                mine.state[self.values[i]] = state
        return mine

    def set_options(self, options: Sequence[dict[str, Any]]) -> None:
        """Learning rates and the like, a dictionary a group."""
        for group, changed in zip(self._optimizer.param_groups, options, strict=True):
            group.update(changed)

    def collect(self, worker: int, entries: Iterable[Entry], tables: Sequence[int]) -> None:
        """Takes a worker's gradients for the next update.

        A piece of a table without rows in it gets a gradient of no rows: optimizers count steps.
        """
        gradients = {
            i: torch.sparse_coo_tensor(
                torch.empty(1, 0, dtype=torch.int64),
                torch.empty(0, *value.shape[1:]),
                value.shape,
                check_invariants=True,
            )
            for i, value in self.values.items()
            if self.pieces[i].parameter in tables
        }
        for entry in entries:
            value = self.values[entry.piece]
            gradient = torch.from_numpy(entry.numbers())
            if entry.rows is None:
                gradients[entry.piece] = gradient.view(value.shape)
            else:
                values = gradient.view(len(entry.rows), *value.shape[1:])
                rows = torch.from_numpy(entry.rows)[None]
                gradients[entry.piece] = torch.sparse_coo_tensor(rows, values, value.shape, check_invariants=True)
        self._collected[worker] = gradients

    def update(self) -> None:
        """One step of the optimizer with the mean of what was collected, summed in the order of ranks.

        A worker without a gradient for a piece counts as zero; a piece without any gradient is left alone.
        """
        count = len(self._collected)
        for i, value in self.values.items():
            gradients = [got[i] for _, got in sorted(self._collected.items()) if i in got]
            if not gradients:
                continue
            total, own = gradients[0], False  # own: not a worker's memory
            for gradient in gradients[1:]:
                if own and not total.is_sparse:
                    total += gradient
                else:
                    total = gradient + total if total.is_sparse else total + gradient
                own = True
            if count > 1:
                total = total.div_(count) if own else total / count
            value.grad = total
        if self.values:
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
        self._collected.clear()
        self.version += 1

    def read(self, worker: int, wanted: Iterable[tuple[int, np.ndarray | None]]) -> list[Entry]:
        """What a worker is sent: numbers that no codec encodes are in the parameters' memory."""
        entries = []
        self._pulls[worker] += 1
        for i, rows in wanted:
            now = self._rows(i, rows)
            held = self._held[worker].get(i)
            if held is None or now.size == 0:
                entries.append(Entry(i, rows, now))
                continue
            assert self._codec is not None
            step = self._pulls[worker]
            part = held if rows is None else held[rows]
            wire = encode(now - part, self._codec.at(step), step=step, stream=worker)
            add_difference(held, rows, wire)
            entries.append(Entry(i, rows, wire))
        return entries

    def state(self) -> dict[int, dict[str, Any]]:
        """The optimizer's state of each piece."""
        return {i: dict(self._optimizer.state[v]) for i, v in self.values.items() if v in self._optimizer.state}

    def exact(self, pieces: Iterable[int]) -> list[Entry]:
        """These pieces' numbers, in the parameters' memory."""
        return [Entry(i, None, self._rows(i, None)) for i in pieces]

    def load(self, pieces: Iterable[Loaded]) -> None:
        """Goes on from these; workers are sent the numbers as they are now."""
        for loaded in pieces:
            value = self.values[loaded.piece]
            value.copy_(torch.from_numpy(loaded.numbers).view(value.shape))
            self._optimizer.state.pop(value, None)
            if loaded.state:
                self._optimizer.state[value] = loaded.state
        for held in self._held.values():
            held.update({i: self._rows(i, None).copy() for i in held})

    def _rows(self, index: int, rows: np.ndarray | None) -> np.ndarray:
        value = as_rows(self.values[index])
        numbers = value.numpy().reshape(value.shape[0], -1)
        return numbers if rows is None else numbers[rows]


def add_difference(held: np.ndarray, rows: np.ndarray | None, wire: np.ndarray) -> None:
    """Adds a decoded difference to the rows that it is of: alike on server and worker, so that they agree."""
    if rows is None:
        decode(wire, held, add=True)
    else:
        part = held[rows]
        decode(wire, part, add=True)
        held[rows] = part
