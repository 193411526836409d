"""Memory with one equal part for every rank of a node, reachable by all of them."""

from __future__ import annotations

import json
import os
import weakref
from typing import Any

import numpy as np

from . import _core
from .errors import Error, InvalidArgument, TransportError
from .exchange import allgather_bytes

_PAGE = 4096


class SymmetricHeap:
    """The symmetric arrays of one communicator.

    Every allocation is a segment of its own: one part a rank of the node, each a whole number of pages, and a page at
    the end where every rank marks that it has dropped its array. A segment is unmapped once all have, at the next
    allocation: until then peers may still reduce their part against another array.
    """

    def __init__(self, comm: Any) -> None:
        self._comm = weakref.proxy(comm)
        self._next_id = 1
        self._marks: dict[int, tuple[Any, int]] = {}  # segment, and where its marks begin

    def allocate(self, nbytes: int) -> Any:
        """`nbytes` bytes of zeroed memory of this rank, writable, with the buffer protocol. Collective; the same
        `nbytes` on every rank."""
        comm = self._comm
        wanted = comm.allgather(np.array([nbytes], dtype=np.int64))
        if (wanted != nbytes).any():
            raise InvalidArgument(
                f"empty: rank {comm.rank} asked for {nbytes} bytes, all ranks for {wanted.tolist()}; wanted the same"
            )
        self._prune()
        region, self._next_id = self._next_id, self._next_id + 1
        stride = max(-(-nbytes // _PAGE), 1) * _PAGE
        marks = stride * comm.node_size
        segment = self._share(marks + -(-comm.node_size // _PAGE) * _PAGE)
        comm._add_region(region, segment, stride)
        self._marks[region] = (segment, marks)
        return _core.Part(segment, stride * comm.node_rank, nbytes, marks + comm.node_rank)

    def _prune(self) -> None:
        for region, (segment, marks) in list(self._marks.items()):
            if segment.all_marked(marks, self._comm.node_size):
                self._comm._release_region(region)
                del self._marks[region]

    def _share(self, nbytes: int) -> Any:
        comm = self._comm
        leads = comm.node_rank == 0
        segment, fd, error = None, -1, ""
        if leads:
            try:
                segment = _core.Segment.create(nbytes)
                fd = segment.fd
            except Error as failure:
                error = str(failure)
        mine = {"fd": fd, "pid": os.getpid(), "error": error, "leads": leads, "node": self._node()}
        offers = [json.loads(offer) for offer in allgather_bytes(comm, json.dumps(mine).encode())]
        offer = next(o for o in offers if o["leads"] and o["node"] == self._node())
        error = offer["error"]
        if not leads and not error:
            try:
                segment = _core.Segment.open(offer["pid"], offer["fd"], nbytes)
            except Error as failure:
                error = str(failure)
        for rank, outcome in enumerate(allgather_bytes(comm, error.encode())):
            if outcome:
                raise TransportError(f"empty: rank {rank}: {outcome.decode()}")
        assert segment is not None
        segment.close_fd()
        return segment

    def _node(self) -> int:
        return self._comm._node_of[self._comm.rank]
