"""The compiled core; its docstrings are in the module. tools/check_stubs.py compares the names with those built."""

from collections.abc import Sequence
from typing import Any

Counts = Sequence[int] | None

class Work:
    def wait(self, timeout: float | None = None) -> None: ...
    def done(self) -> bool: ...
    @property
    def source(self) -> int | None: ...
    def result(self) -> Any: ...
    def exception(self) -> BaseException | None: ...

class Segment:
    @staticmethod
    def create(bytes: int) -> Segment: ...
    @staticmethod
    def open(pid: int, fd: int, bytes: int) -> Segment: ...
    @staticmethod
    def local(bytes: int) -> Segment: ...
    @property
    def fd(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    def all_marked(self, first: int, count: int) -> bool: ...
    def close_fd(self) -> None: ...

class Part:
    def __init__(self, segment: Segment, offset: int, bytes: int, mark: int) -> None: ...

class Member:
    def __init__(self, rank: int, host: str, pid: int = 0, started: int = 0) -> None: ...

class Transport:
    @property
    def name(self) -> str: ...
    @property
    def rank(self) -> int: ...
    @property
    def size(self) -> int: ...

class ShmTransport(Transport):
    def __init__(self, segment: Segment, rank: int, members: Sequence[Member], cores: int) -> None: ...
    @staticmethod
    def segment_bytes(size: int) -> int: ...
    def leave(self) -> None: ...

# Arrays are Any: of NumPy, of torch, whatever has the buffer protocol or DLPack. With wait=False the result is a Work.
class Communicator:
    timeout: float
    def __init__(
        self,
        node: ShmTransport,
        world: Transport | None,
        timeout: float,
        algo: str | None,
        node_of: Sequence[int],
        rules: Sequence[tuple[str, bool, int, int, str]],
    ) -> None: ...
    @property
    def rank(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def node_rank(self) -> int: ...
    @property
    def node_size(self) -> int: ...
    @property
    def transport(self) -> str: ...
    @property
    def closed(self) -> bool: ...
    @property
    def failed(self) -> bool: ...
    def stats(self) -> dict[str, int]: ...
    def allreduce(
        self,
        x: Any,
        op: str = "sum",
        *,
        out: Any = None,
        factor: float | None = None,
        algo: str | None = None,
        timeout: float | None = None,
        wait: bool = True,
        codec: Any = None,
        feedback: Feedback | None = None,
        step: int | None = None,
        everywhere: bool = False,
    ) -> Any: ...
    def reduce_scatter(
        self,
        x: Any,
        out: Any = None,
        op: str = "sum",
        *,
        counts: Counts = None,
        factor: float | None = None,
        algo: str | None = None,
        timeout: float | None = None,
        wait: bool = True,
    ) -> Any: ...
    def allgather(
        self,
        x: Any,
        out: Any = None,
        *,
        counts: Counts = None,
        algo: str | None = None,
        timeout: float | None = None,
        wait: bool = True,
    ) -> Any: ...
    def broadcast(
        self, x: Any, root: int = 0, *, algo: str | None = None, timeout: float | None = None, wait: bool = True
    ) -> Any: ...
    def reduce(
        self,
        x: Any,
        op: str = "sum",
        root: int = 0,
        *,
        out: Any = None,
        factor: float | None = None,
        algo: str | None = None,
        timeout: float | None = None,
        wait: bool = True,
    ) -> Any: ...
    def gather(
        self,
        x: Any,
        out: Any = None,
        root: int = 0,
        *,
        counts: Counts = None,
        algo: str | None = None,
        timeout: float | None = None,
        wait: bool = True,
    ) -> Any: ...
    def scatter(
        self,
        x: Any,
        out: Any = None,
        root: int = 0,
        *,
        counts: Counts = None,
        algo: str | None = None,
        timeout: float | None = None,
        wait: bool = True,
    ) -> Any: ...
    def alltoall(
        self,
        x: Any,
        out: Any = None,
        *,
        send_counts: Counts = None,
        recv_counts: Counts = None,
        algo: str | None = None,
        timeout: float | None = None,
        wait: bool = True,
    ) -> Any: ...
    def barrier(self, *, timeout: float | None = None, wait: bool = True) -> Any: ...
    def send(self, x: Any, to: int, *, tag: int = 0, timeout: float | None = None, wait: bool = True) -> Any: ...
    def recv(
        self, x: Any, source: int | None, *, tag: int = 0, timeout: float | None = None, wait: bool = True
    ) -> Any: ...
    def sendrecv(
        self, x: Any, to: int, out: Any, source: int, *, timeout: float | None = None, wait: bool = True
    ) -> Any: ...
    def _abort(self, why: str) -> None: ...
    def _add_region(self, id: int, segment: Segment, stride: int) -> None: ...
    def _release_region(self, id: int) -> None: ...
    def _settle(self) -> str: ...
    def _close(self) -> None: ...

class Encoder:
    @staticmethod
    def blocks(format: str, block: int, stochastic: bool, seed: int) -> Encoder: ...
    @staticmethod
    def topk(ratio: float, k: int, exact: bool, format: str) -> Encoder: ...
    @staticmethod
    def randomk(ratio: float, k: int, seed: int) -> Encoder: ...
    @staticmethod
    def shared_scale(bits: int, block: int) -> Encoder: ...
    def describe(self) -> str: ...
    def most_bytes(self, count: int) -> int: ...
    def encode(
        self, x: Any, wire: Any, residual: Any = None, step: int = 0, stream: int = 0, index: int = 0
    ) -> int: ...

def decode_into(out: Any, wire: Any) -> None: ...
def decode_add(acc: Any, wire: Any) -> None: ...

class Feedback:
    def __init__(self, residual: Any = None) -> None: ...
    @property
    def report(self) -> dict[str, Any]: ...

def algorithms(kind: str) -> list[str]: ...
def process_id() -> tuple[int, int]: ...
def simd() -> str: ...
