"""DistributedDataParallel's gradients in memory that the ranks of a node share: a bucket is averaged where it lies.

model = DistributedDataParallel(net, gradient_as_bucket_view=True)
model.register_comm_hook(pycoll.torch.SharedBuckets(), pycoll.torch.allreduce_hook)
"""

# No postponed annotations: DDP compares those of the hook with its own types.
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d as c10d

from ..errors import InvalidArgument
from .group import ProcessGroup


class SharedBuckets:
    """The state of allreduce_hook, one for each DDP model: which of its buckets lie in symmetric memory.

    process_group: DDP's, over pycoll; the default group if none is given.
    """

    def __init__(self, process_group: Any = None) -> None:
        self._given = process_group
        self._places: dict[int, torch.Tensor] = {}  # by DDP's number; kept, so that no other bucket gets their address

    @property
    def _group(self) -> ProcessGroup:
        group = self._given or dist.group.WORLD
        if not isinstance(group, ProcessGroup):
            raise InvalidArgument(f"SharedBuckets: the process group is {group}, wanted one over pycoll")
        return group

    def _move(self, index: int, buffer: torch.Tensor) -> None:
        """Once for each bucket, and again when DDP has made its buckets anew. Collective: ranks do so together."""
        known = self._places.get(index)
        if known is not None and known.data_ptr() == buffer.data_ptr():
            return
        memory = buffer.untyped_storage()
        place = self._group.communicator.empty(buffer.numel(), buffer.dtype)
        # DDP's views of the bucket see the new memory too: it is the storage's that changes, and they share it.
        if place.untyped_storage().nbytes() == memory.nbytes():
            place.copy_(buffer)
            memory._swap_data_ptr_(place.untyped_storage())
        self._places[index] = buffer

    def _start(self, bucket: dist.GradBucket) -> Any:
        buffer = bucket.buffer()
        if buffer.is_cpu and buffer.layout is torch.strided and hasattr(torch.UntypedStorage, "_swap_data_ptr_"):
            self._move(bucket.index(), buffer)
        opts = c10d.AllreduceOptions()
        opts.reduceOp = dist.ReduceOp.AVG
        return self._group.allreduce([buffer], opts).get_future().then(lambda future: future.value()[0])


def allreduce_hook(state: SharedBuckets, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    """A hook for DistributedDataParallel.register_comm_hook(): averages gradients over ranks where they lie."""
    return state._start(bucket)
