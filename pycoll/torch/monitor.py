"""A barrier that names the ranks that did not come. It goes through torch's store, so the group can be used on after
it failed."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from ..errors import Timeout


def monitored_barrier(store: Any, rank: int, size: int, timeout: timedelta, wait_all_ranks: bool) -> None:
    """Rank 0 waits for all others, and tells them. Raises Timeout, on rank 0 with the ranks that are missing.

    store: of this one barrier. wait_all_ranks: look for all that are missing, not only the first.
    """
    if rank != 0:
        store.set(f"{rank}", "here")
        _hear(store, rank, timeout)
        return
    end = time.monotonic() + timeout.total_seconds()
    missing: list[int] = []
    for other in range(1, size):
        left = end - time.monotonic()
        if left <= 0 and not missing:
            raise Timeout(f"[Rank 0]: Rank 0 timed out in monitoredBarrier after {_milliseconds(timeout)} ms")
        if not _came(store, f"{other}", max(left, 0.001)):
            missing.append(other)
            if not wait_all_ranks:
                break
    store.set("verdict", ",".join(map(str, missing)))
    if missing:
        which = f"Rank{'s' if len(missing) > 1 else ''} {', '.join(map(str, missing))}"
        raise Timeout(f"[Rank 0]: {which} failed to pass monitoredBarrier in {_milliseconds(timeout)} ms")


def _hear(store: Any, rank: int, timeout: timedelta) -> None:
    reached = f"Rank {rank} successfully reached monitoredBarrier, but received errors while waiting for send/recv"
    if not _came(store, "verdict", timeout.total_seconds()):
        raise Timeout(f"{reached} from rank 0. Please check rank 0 logs for faulty rank.")
    if missing := store.get("verdict").decode():
        raise Timeout(f"{reached} from rank 0: ranks {missing} did not come.")


def _milliseconds(timeout: timedelta) -> int:
    return round(timeout.total_seconds() * 1000)


def _came(store: Any, key: str, seconds: float) -> bool:
    try:
        store.wait([key], timedelta(seconds=seconds))
    except RuntimeError:  # DistStoreError is one
        return False
    return True
