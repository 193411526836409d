"""Makes process groups out of torch's stores."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist

from .. import bootstrap, comm, launcher
from ..exchange import StoreExchange
from ..settings import Settings
from .group import ProcessGroup

#: How often a group of each name was made: a store may outlive a group, and keeps its keys.
_made: dict[str, int] = {}


def create(options: Any, backend_options: Any = None) -> ProcessGroup:
    """What torch calls for init_process_group() and new_group()."""
    return make_group(
        options.store, options.group_rank, options.group_size, options.timeout.total_seconds(), options.group_id
    )


def make_group(store: Any, rank: int, size: int, timeout: float, name: str) -> ProcessGroup:
    """A group of `size` ranks that share `store`, and nobody else does. Collective over them.

    timeout: seconds, of meeting and of every operation. Raises TransportError where the ranks are on several nodes and
    there is no MPI.
    """
    _made[name] = _made.get(name, 0) + 1
    exchange = StoreExchange(dist.PrefixStore(f"pycoll/{_made[name]}", store), rank, size, timeout)
    settings = Settings.from_environment(timeout)
    if launcher.mpi_launcher() is None:
        return ProcessGroup(store, comm.Communicator(bootstrap.make_group(exchange, settings)), name)
    mpi, handle = _by_mpi(exchange, name, timeout)
    communicator = comm.Communicator(bootstrap.make_group(exchange, settings, mpi, handle), mpi, handle)
    communicator._owns_mpi_handle = True
    return ProcessGroup(store, communicator, name)


def _by_mpi(exchange: StoreExchange, name: str, timeout: float) -> tuple[Any, int]:
    """The module _mpi, and an MPI communicator of these ranks in this order."""
    mpi = launcher.load_mpi()
    comm._initialize(mpi)
    world = mpi.world()
    ranks = [int(rank) for rank in exchange.allgather(str(mpi.rank_and_size(world)[0]).encode())]
    return mpi, mpi.create_group(world, ranks, sum(name.encode()) % 32000, timeout)
