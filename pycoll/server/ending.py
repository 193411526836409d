"""The `with` block of what must be closed, and says why where it ends with an exception."""

from __future__ import annotations

from types import TracebackType
from typing import TypeVar

Self = TypeVar("Self", bound="Ending")


class Ending:
    """Leaving the block closes; with an exception, the other ranks learn of it."""

    def close(self) -> None:
        """Has finished."""
        raise NotImplementedError

    def _fail(self, error: BaseException) -> None:
        """Ends at once, and tells the other ranks of this error."""
        raise NotImplementedError

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._fail(error)
