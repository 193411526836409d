"""init_method="mpi://": ranks that mpirun started meet at a store of rank 0, without settings in the environment."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import urlparse

import torch.distributed as dist

from .. import comm, launcher
from ..errors import TransportError
from ..exchange import MpiExchange


def meet_by_mpi(url: str, timeout: timedelta = timedelta(minutes=5), **settings: Any) -> Iterator[tuple[Any, int, int]]:
    """Collective over all that mpirun started."""
    if urlparse(url).netloc:
        raise TransportError(f"init_process_group: init_method is {url}, wanted mpi:// and nothing more")
    mpi = launcher.load_mpi()
    comm._initialize(mpi)
    exchange = MpiExchange(mpi, mpi.world(), timeout.total_seconds())
    hosts = [name.decode() for name in exchange.allgather(socket.gethostname().encode())]
    host = hosts[0] if len(set(hosts)) > 1 else "localhost"
    store = dist.TCPStore(host, 0, exchange.size, True, timeout, False) if exchange.rank == 0 else None
    port = int(exchange.allgather(str(store.port if store else 0).encode())[0])
    yield store or dist.TCPStore(host, port, exchange.size, False, timeout, False), exchange.rank, exchange.size
    raise RuntimeError("mpi://: ranks meet once")
