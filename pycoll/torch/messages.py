"""Messages between two ranks of a process group."""

from __future__ import annotations

import torch

from ..comm import Communicator
from .collectives import Collectives, Tensors, _only
from .loan import Loan
from .work import Work


class Messages(Collectives):
    """send and recv. Messages of one rank and one tag arrive in the order sent."""

    _comm: Communicator

    def send(self, tensors: Tensors, dst: int, tag: int = 0) -> Work:
        x = Loan().read(_only(tensors, "send"))
        return self._under_way("send", Work([self._comm.send(x, dst, tag=tag, wait=False)], tensors))

    def recv(self, tensors: Tensors, src: int, tag: int = 0) -> Work:
        return self._receive("recv", tensors, src, tag)

    def recv_anysource(self, tensors: Tensors, tag: int = 0) -> Work:
        return self._receive("recvAnySource", tensors, None, tag)

    def _receive(self, name: str, tensors: Tensors, source: int | None, tag: int) -> Work:
        loan = Loan()
        out = loan.write(_only(tensors, name))
        return self._under_way(name, Work([self._comm.recv(out, source, tag=tag, wait=False)], tensors, loan))

    def _under_way(self, name: str, work: Work) -> Work:
        if torch.autograd._profiler_enabled():
            with torch.profiler.record_function(f"pycoll:{name}"):
                pass
        if self._coalesced is not None:
            self._coalesced.append(work)
        return work
