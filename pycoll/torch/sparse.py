"""Sums of sparse tensors: every rank's elements are gathered, and added up where they meet."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from ..comm import Communicator
from ..errors import InvalidArgument
from .work import Done


def allreduce(comm: Communicator, x: torch.Tensor, opts: Any) -> Done:
    """In place, over COO tensors of one shape on all ranks, whose numbers of elements may differ. Ends before it
    returns."""
    if x.layout is not torch.sparse_coo or not x.is_cpu or opts.reduceOp.op != dist.ReduceOp.RedOpType.SUM:
        raise InvalidArgument(
            f"allreduce: got a {x.layout} tensor on {x.device}, wanted SUM of torch.sparse_coo on cpu"
        )
    mine = x.detach().coalesce()
    sizes = [*mine.shape, mine.sparse_dim()]
    facts = comm.allgather(torch.tensor([mine._nnz(), *sizes])).reshape(comm.size, -1)
    if (facts[:, 1:] != torch.tensor(sizes)).any():
        raise InvalidArgument(f"allreduce: ranks have sparse tensors of different shapes: {facts[:, 1:].tolist()}")
    counts = facts[:, 0].tolist()
    rows = mine.sparse_dim()
    each = torch.Size(mine.shape[rows:]).numel()
    indices = comm.allgather(mine.indices().t().contiguous(), counts=[n * rows for n in counts])
    values = comm.allgather(mine.values().contiguous(), counts=[n * each for n in counts])
    total = torch.sparse_coo_tensor(
        indices.reshape(-1, rows).t(), values.reshape(-1, *mine.shape[rows:]), mine.shape, check_invariants=False
    )
    with torch.no_grad():
        x.copy_(total.coalesce())
    return Done([x])
