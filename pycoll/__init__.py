"""pycoll: collective communication with a C++/CUDA core and a thin Python API.

    import numpy as np, pycoll
    comm = pycoll.init()                 # under mpirun, torchrun, or alone
    x = np.full(1000, comm.rank, np.float32)
    comm.allreduce(x)                    # in place; every rank has the sum

See `Communicator` for the collectives, `DistributedOptimizer` and `ShardedOptimizer` for training, `pycoll doctor` for
this machine.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from . import _core
from ._build_info import VERSION as __version__
from ._core import Work
from .codec import Cast, Chain, Fp8, Identity, Int4, Int8, RandomK, SharedScale, Sign, TopK
from .comm import Communicator, init
from .errors import DeviceError, Error, InvalidArgument, MismatchError, PeerFailed, Timeout, TransportError
from .feedback import Feedback
from .powersgd import PowerSGD
from .schedule import Warmup

if TYPE_CHECKING:
    from . import data, federated, gossip, loopback, mapreduce
    from .compression import Compression
    from .local import DiLoCo, LocalSGD
    from .optim import DistributedOptimizer
    from .pool import TaskPool
    from .server import ParameterServer, PSOptimizer
    from .sharded import ShardedOptimizer


def algorithms(kind: str = "allreduce") -> list[str]:
    """Names that `algo=` takes for a collective. "direct" needs memory shared by all ranks."""
    return _core.algorithms(kind)


# Imported when first used: torch, and what else they need, is only for those who use them.
_LATER = {
    "Compression": "compression",
    "DiLoCo": "local",
    "DistributedOptimizer": "optim",
    "LocalSGD": "local",
    "PSOptimizer": "server",
    "ParameterServer": "server",
    "ShardedOptimizer": "sharded",
    "TaskPool": "pool",
}
_MODULES = ("data", "federated", "gossip", "loopback", "mapreduce")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"pycoll.{name}")
    if name in _LATER:
        return getattr(importlib.import_module(f"pycoll.{_LATER[name]}"), name)
    raise AttributeError(f"module 'pycoll' has no attribute {name!r}")


__all__ = [
    "Cast",
    "Chain",
    "Communicator",
    "Compression",
    "DeviceError",
    "DiLoCo",
    "DistributedOptimizer",
    "Error",
    "Feedback",
    "Fp8",
    "Identity",
    "Int4",
    "Int8",
    "InvalidArgument",
    "LocalSGD",
    "MismatchError",
    "PSOptimizer",
    "ParameterServer",
    "PeerFailed",
    "PowerSGD",
    "RandomK",
    "ShardedOptimizer",
    "SharedScale",
    "Sign",
    "TaskPool",
    "Timeout",
    "TopK",
    "TransportError",
    "Warmup",
    "Work",
    "__version__",
    "algorithms",
    "data",
    "federated",
    "gossip",
    "init",
    "loopback",
    "mapreduce",
]
