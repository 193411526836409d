"""What a worker has of the servers' parameters."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..codec import Codec
from .pieces import Piece, Reply, as_rows, flat
from .shard import add_difference


class View:
    """Replies become numbers in the client's thread, and the parameters' values when the worker wants them.

    versions: of each server's shard, as the parameters are now.
    """

    def __init__(self, pieces: Sequence[Piece], parameters: Sequence[torch.Tensor], codec: Codec | None) -> None:
        self.versions: dict[int, int] = {}
        self._pieces, self._parameters = pieces, parameters
        encoded = [piece for piece in pieces if codec is not None and piece.compressed]
        self._held = {p.index: flat(p.of(parameters[p.parameter])).copy().reshape(p.end - p.begin, -1) for p in encoded}

    def is_held(self, piece: Piece) -> bool:
        """True if pulls of it are encoded."""
        return piece.index in self._held

    def take(self, reply: Reply) -> None:
        """Decodes: entries' wires become float32 numbers."""
        for i, entry in enumerate(reply.entries):
            if entry.encoded:
                held = self._held[entry.piece]
                add_difference(held, entry.rows, entry.wire)
                numbers = held.copy() if entry.rows is None else held[entry.rows]
                reply.entries[i] = type(entry)(entry.piece, entry.rows, numbers)

    def exact(self, reply: Reply) -> None:
        """Like take(), of entries that are a server's numbers and no differences."""
        for entry in reply.entries:
            if entry.piece in self._held:
                self._held[entry.piece][:] = entry.wire

    def show(self, replies: dict[int, Reply]) -> None:
        """Overwrites the parameters with what was taken."""
        with torch.no_grad():
            for server, reply in replies.items():
                self.versions[server] = reply.version
                for entry in reply.entries:
                    piece = self._pieces[entry.piece]
                    target = piece.of(self._parameters[piece.parameter].detach())
                    numbers = torch.from_numpy(entry.wire)
                    if entry.rows is None:
                        target.copy_(numbers.view(target.shape))
                    else:
                        rows = torch.from_numpy(entry.rows)
                        table = as_rows(target)
                        table[rows] = numbers.view(len(entry.rows), *table.shape[1:]).to(table.dtype)
