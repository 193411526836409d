"""The systems, and the line that puts each of them into a training loop.

Each function takes an optimizer, the model's named parameters, the ranks' communicator, and a codec or None. What it
returns is stepped in place of the optimizer.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pycoll
from pycoll.gossip import GossipOptimizer, Ring
from pycoll.server import bounded

STALENESS = 4  # of bounded
LOCAL, DILOCO = 8, 16  # steps between agreements


@dataclass(frozen=True)
class System:
    name: str
    wrap: Callable | None  # None: the training has another form (federated), or there is one rank only
    finish: Callable | None = None  # f(optimizer, comm): afterwards all ranks have the same model
    common: bool = True  # rank 0's model is that of all; else it is the mean over ranks
    divide: bool = False  # each rank makes updates of its own: the learning rate is divided by the number of ranks
    by_speed: bool = False  # nobody waits, so ranks take steps in proportion to their speed
    adamw: float = 0.0  # its learning rate, where AdamW takes the place of SGD; as the system's authors have it
    codecs: bool = True


def all_reduce(optimizer, named, comm, codec):
    return pycoll.DistributedOptimizer(optimizer, named, comm, codec=codec)


def server(mode):
    def wrap(optimizer, named, comm, codec):
        return pycoll.PSOptimizer(optimizer, named, comm, mode=mode, codec=codec, pull_codec=codec)

    return wrap


def pull(optimizer, comm):
    comm.barrier()  # all have pushed
    optimizer.server.pull()


def gossip(optimizer, named, comm, codec):
    return GossipOptimizer(optimizer, named, comm, topology=Ring(), codec=codec)


def local_sgd(optimizer, named, comm, codec):
    return pycoll.LocalSGD(optimizer, named, comm, every=LOCAL, codec=codec)


def diloco(optimizer, named, comm, codec):
    return pycoll.DiLoCo(optimizer, named, comm, every=DILOCO, codec=codec)


def synchronize(optimizer, comm):
    optimizer.synchronize()


def average(optimizer, comm):
    optimizer.average()


ALONE = System("one rank", None, codecs=False)
FEDERATED = System("federated", None)
SYSTEMS = (
    ALONE,
    System("all-reduce", all_reduce),
    System("server sync", server("sync"), pull),
    System("server bounded", server(bounded(STALENESS)), pull, divide=True),
    System("server async", server("async"), pull, divide=True, by_speed=True),
    System("gossip", gossip, average, common=False),
    System("local SGD", local_sgd, synchronize, common=False),
    System("DiLoCo", diloco, synchronize, common=False, adamw=3e-3),
    FEDERATED,
)
