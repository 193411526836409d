"""pycoll as a backend of torch.distributed.

    import pycoll.torch  # not needed where pycoll is installed: torch finds the backend by an entry point
    dist.init_process_group("pycoll")

Then torch.distributed's functions, DistributedDataParallel, FSDP2 and DeviceMesh, as they are. See docs/torch.md.
"""

from __future__ import annotations

from _pycoll_torch import register

from .group import ProcessGroup
from .hook import HookState, compress_hook, state
from .shared_buckets import SharedBuckets, allreduce_hook

register()

__all__ = ["HookState", "ProcessGroup", "SharedBuckets", "allreduce_hook", "compress_hook", "register", "state"]
