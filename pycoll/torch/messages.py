"""Messages between two ranks of a process group."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ..comm import Communicator
from . import profile
from .collectives import Collectives, Tensors, _only
from .loan import Loan
from .work import Work


class Messages(Collectives):
    """send and recv. Messages of one rank and one tag arrive in the order sent."""

    _comm: Communicator

    def send(self, tensors: Tensors, dst: int, tag: int = 0) -> Work:
        x, loan = _only(tensors, "send"), Loan()
        call = partial(self._comm.send, loan.read(x), dst, tag=tag, wait=False)
        return self._begin("send", call, tensors, loan)

    def recv(self, tensors: Tensors, src: int, tag: int = 0) -> Work:
        return self._receive("recv", tensors, src, tag)

    def recv_anysource(self, tensors: Tensors, tag: int = 0) -> Work:
        return self._receive("recvAnySource", tensors, None, tag)

    def _receive(self, name: str, tensors: Tensors, source: int | None, tag: int) -> Work:
        loan = Loan()
        call = partial(self._comm.recv, loan.write(_only(tensors, name)), source, tag=tag, wait=False)
        return self._begin(name, call, tensors, loan)

    def _begin(self, name: str, call: Callable[[], Any], tensors: Tensors, loan: Loan) -> Work:
        mark = profile.enter(name, tensors) if profile.watched() else None
        work = Work([call()], tensors, loan)
        if mark is not None:
            profile.leave_with(work, mark)
        if self._coalesced is not None:
            self._coalesced.append(work)
        return work
