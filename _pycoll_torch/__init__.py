"""What torch imports at its start, by an entry point: names pycoll's backend, and imports pycoll when it is used.

A package of its own, so that `import torch` is neither slower nor more fragile where pycoll is installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def register() -> None:
    """Makes "pycoll" a backend of torch.distributed, and "mpi://" a way to meet. A second call does nothing."""
    import torch.distributed as dist

    if not dist.is_available() or "PYCOLL" in dist.Backend._plugins:
        return
    dist.Backend.register_backend("pycoll", _create, extended_api=True, devices=["cpu", "cuda"])
    dist.register_rendezvous_handler("mpi", _meet_by_mpi)


def _create(options: Any, backend_options: Any = None) -> Any:
    from pycoll.torch import backend

    return backend.create(options, backend_options)


def _meet_by_mpi(url: str, **settings: Any) -> Iterator[Any]:
    from pycoll.torch import rendezvous

    return rendezvous.meet_by_mpi(url, **settings)
