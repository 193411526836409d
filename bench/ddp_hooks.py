"""Hooks for DistributedDataParallel that average a bucket's gradients by a group's allreduce, or by MPI through mpi4py.

torch has no MPI in its wheels. So MPI is called in the backward pass (MPI_Allreduce), begun in it and waited for at its
end (MPI_Iallreduce), or called by a thread of the hook's own.
"""

# No postponed annotations: DDP compares those of hooks with its own types.
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
import torch.distributed as dist
from mpi4py import MPI
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.futures import Future

Hook = Callable[[Any, dist.GradBucket], Future[torch.Tensor]]

allreduce = default_hooks.allreduce_hook


def hand_back(_: Any, bucket: dist.GradBucket) -> Future[torch.Tensor]:
    """No communication."""
    return _done(bucket.buffer())


def mpi_allreduce(comm: MPI.Comm, bucket: dist.GradBucket) -> Future[torch.Tensor]:
    x = bucket.buffer()
    comm.Allreduce(MPI.IN_PLACE, x.numpy())
    return _done(x.div_(comm.size))


def make_mpi_iallreduce() -> Hook:
    """Begins each bucket when it is full, and waits for all when the last one has begun."""
    under_way: list[tuple[MPI.Request, torch.Tensor, Future[torch.Tensor]]] = []

    def mpi_iallreduce(comm: MPI.Comm, bucket: dist.GradBucket) -> Future[torch.Tensor]:
        x, future = bucket.buffer(), Future()
        under_way.append((comm.Iallreduce(MPI.IN_PLACE, x.numpy()), x, future))
        for request, _, _ in under_way:
            request.Test()  # an MPI moves on when it is called
        while bucket.is_last() and under_way:
            request, array, its_future = under_way.pop(0)
            request.Wait()
            its_future.set_result(array.div_(comm.size))
        return future

    return mpi_iallreduce


def make_mpi_in_a_thread() -> Hook:
    """MPI_Allreduce in a thread, which lets the backward pass go on."""
    thread = ThreadPoolExecutor(1)

    def mpi_in_a_thread(comm: MPI.Comm, bucket: dist.GradBucket) -> Future[torch.Tensor]:
        x, future = bucket.buffer(), Future()

        def sum_up() -> None:
            comm.Allreduce(MPI.IN_PLACE, x.numpy())
            future.set_result(x.div_(comm.size))

        thread.submit(sum_up)
        return future

    return mpi_in_a_thread


#: Of each contestant: when a bucket's allreduce was asked for and had ended, on this rank.
noted: dict[str, list[list[float]]] = {}


def watched(name: str, stated_hook: tuple[Any, Hook]) -> tuple[Any, Hook]:
    """The same with notes of begin and end in `noted[name]`."""
    state, hook = stated_hook
    spans = noted.setdefault(name, [])

    def watch(_: Any, bucket: dist.GradBucket) -> Future[torch.Tensor]:
        span = [time.perf_counter(), 0.0]
        spans.append(span)

        def end(future: Future[torch.Tensor]) -> torch.Tensor:
            span[1] = time.perf_counter()
            return future.value()

        return hook(state, bucket).then(end)

    return None, watch


def _done(x: torch.Tensor) -> Future[torch.Tensor]:
    future = Future()
    future.set_result(x)
    return future
