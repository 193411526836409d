"""What pycoll raises: one class a kind of failure, one sentence a message. See docs/errors.md."""

from __future__ import annotations

from collections.abc import Callable


class Error(RuntimeError):
    """Base of all errors that pycoll raises."""


class InvalidArgument(Error, ValueError):
    """An argument is wrong; nothing was sent, and the communicator can be used on."""


class MismatchError(Error):
    """Ranks called different operations, or the same one with different arguments; all raise the same sentence."""


class PeerFailed(Error):
    """A rank exited, was killed, or is stopped. The communicator cannot be used on.

    Attributes: `rank` (int), `host` (str), `operation` (str: the last one that it took part in).
    """

    def __init__(self, message: str, rank: int = -1, host: str = "", operation: str = "") -> None:
        super().__init__(message)
        self.rank = rank
        self.host = host
        self.operation = operation

    def __reduce__(self) -> tuple[type[PeerFailed], tuple[str, int, str, str]]:
        return type(self), (str(self), self.rank, self.host, self.operation)


class Timeout(Error, TimeoutError):
    """A deadline passed while peers that are alive had not arrived. The communicator cannot be used on."""


class TransportError(Error):
    """Shared memory or MPI failed, or is not what was asked for."""


class DeviceError(Error):
    """A GPU call failed, or there is no GPU."""


def capture(call: Callable[[], object]) -> BaseException | None:
    """The exception that `call` raises, or None."""
    try:
        call()
    except Exception as error:
        return error
    return None
