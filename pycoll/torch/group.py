"""The process group: one communicator, with what torch asks of a group beside its collectives."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from ..comm import Communicator
from .messages import Messages
from .monitor import monitored_barrier


class ProcessGroup(Messages, dist.ProcessGroup):
    """A group of ranks over pycoll. Made by dist.init_process_group("pycoll") and dist.new_group()."""

    def __init__(self, store: Any, comm: Communicator, name: str = "") -> None:
        dist.ProcessGroup.__init__(self, comm.rank, comm.size)
        self._comm, self._store = comm, store
        self._name, self._description = name, "undefined"
        self._barriers = self._splits = 0

    @property
    def communicator(self) -> Communicator:
        """pycoll's own interface to the same ranks: codecs, symmetric memory. Calls have one order with torch's."""
        return self._comm

    # ---- Names, which C++ asks for in its own spelling

    def getBackendName(self) -> str:
        return "pycoll"

    def getGroupName(self) -> str:
        return self._name

    def setGroupName(self, name: str) -> None:
        self._name = name

    def getGroupDesc(self) -> str:
        return self._description

    def setGroupDesc(self, description: str) -> None:
        self._description = description

    @property
    def _device_types(self) -> list[torch.device]:
        return [torch.device(kind) for kind in (("cpu", "cuda") if torch.cuda.is_available() else ("cpu",))]

    def _get_backend(self, device: Any) -> ProcessGroup:
        return self

    def _get_backend_name(self) -> str:
        return "pycoll"

    def get_group_store(self) -> Any:
        return self._store

    # What torch asks a backend before it uses an extension of NCCL's.
    supports_splitting = supports_coalescing = supports_time_estimate = supports_shrinking = False

    def _set_sequence_number_for_group(self) -> None:
        """Nothing: the core counts operations itself."""

    def _get_sequence_number_for_group(self) -> int:
        return self._comm.stats()["operations"]

    # ---- Parts of it

    def split_group(
        self,
        ranks: list[int],
        timeout: timedelta | None = None,
        opts: Any = None,
        group_name: str | None = None,
        group_desc: str | None = None,
        device_types: Any = None,
    ) -> ProcessGroup | None:
        """A group of some of these ranks, in the order given. Called by them all; others get None."""
        from .backend import make_group

        self._splits += 1
        if self._comm.rank not in ranks:
            return None
        name = group_name or f"{self._name}:split:{self._splits}:{'-'.join(map(str, ranks))}"
        part = make_group(
            dist.PrefixStore(f"{name}/", self._store),
            ranks.index(self._comm.rank),
            len(ranks),
            timeout.total_seconds() if timeout else self._comm.timeout,
            name,
        )
        part.setGroupDesc(group_desc or "undefined")
        return part

    # ---- Time

    def set_timeout(self, timeout: timedelta) -> None:
        """Of every operation from now on that has none of its own."""
        self._comm.timeout = timeout.total_seconds()

    def monitored_barrier(self, timeout: timedelta | None = None, wait_all_ranks: bool = False) -> None:
        """A barrier that names, on rank 0, ranks that did not come. The group can be used on after it failed."""
        self._barriers += 1
        store = dist.PrefixStore(f"monitored/{self._barriers}", self._store)
        if timeout is None:
            timeout = timedelta(seconds=min(self._comm.timeout, 1e8))
        monitored_barrier(store, self._comm.rank, self._comm.size, timeout, wait_all_ranks)

    # ---- End

    def shutdown(self) -> None:
        """Waits for what is under way, then leaves. Idempotent."""
        self._comm.close()

    def abort(self) -> None:
        """Leaves at once; the peers' operations raise PeerFailed."""
        self._comm._abort("aborted its process group")
        self._comm.close()
