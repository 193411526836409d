"""The collectives of a process group, under the names that torch calls them by, old and new."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d as c10d

from ..comm import Communicator
from ..errors import InvalidArgument
from . import profile, sparse
from .loan import Loan, lies_ready, width
from .reduction import operator_of
from .work import Done, Work, seconds_of

Tensors = list[torch.Tensor]
_SUM = dist.ReduceOp.RedOpType.SUM


class Collectives:
    """What is called on `self._comm`. Calls with opts.asyncOp unset have ended when they return."""

    _comm: Communicator
    _coalesced: list[Work] | None = None  # since _start_coalescing

    def _run(
        self, name: str, opts: Any, calls: Sequence[Callable[..., Any]], result: Tensors, loan: Loan | None = None
    ) -> Work:
        """Makes the calls of the core, which are one operation for torch."""
        timeout = seconds_of(opts.timeout)
        mark = profile.enter(name, loan.inputs if loan else []) if profile.watched() else None
        if not opts.asyncOp and mark is None:
            for call in calls:
                call(timeout=timeout)
            if loan:
                loan.give_back()
            return Done(result)
        work = Work([call(timeout=timeout, wait=False) for call in calls], result, loan)
        if mark is not None:
            profile.leave_with(work, mark)
        if not opts.asyncOp:
            work.wait()
        elif self._coalesced is not None:
            self._coalesced.append(work)
        return work

    def _spelled_out(self, name: str, *given: Any, **named: Any) -> Work:
        """A call in one of the other ways that torch knows: it makes lists and options of it, and comes back."""
        while given and given[-1] is None:
            given = given[:-1]
        return getattr(dist.ProcessGroup, name)(self, *given, **named)

    # ---- Reductions

    def allreduce(self, tensors: Tensors, opts: Any = None, *rest: Any, **named: Any) -> Any:
        if type(tensors) is not list or not isinstance(opts, c10d.AllreduceOptions):
            return self._spelled_out("allreduce", tensors, opts, *rest, **named)
        x = _only(tensors, "allreduce")
        if x.layout is not torch.strided:
            return sparse.allreduce(self._comm, x, opts)
        if not opts.asyncOp and opts.reduceOp == _SUM and lies_ready(x) and not profile.watched():
            timeout = seconds_of(opts.timeout)
            if timeout is None:
                self._comm.allreduce(x)  # the shortest way there is
            else:
                self._comm.allreduce(x, timeout=timeout)
            return None  # as torch's backends do where asyncOp is false and all is done; a Work costs 1 us
        loan = Loan()
        call = partial(self._comm.allreduce, loan.update(x), **operator_of(opts.reduceOp, x.dtype))
        return self._run("all_reduce", opts, [call], tensors, loan)

    def allreduce_coalesced(self, tensors: Tensors, opts: Any = None) -> Work:
        opts = opts or c10d.AllreduceCoalescedOptions()
        loan = Loan()
        by_dtype: dict[torch.dtype, Tensors] = {}
        for tensor in tensors:
            by_dtype.setdefault(tensor.dtype, []).append(loan.update(tensor))
        calls = [
            partial(self._comm.allreduce, pieces, **operator_of(opts.reduceOp, dtype))
            for dtype, pieces in by_dtype.items()
        ]
        return self._run("all_reduce_coalesced", opts, calls, tensors, loan)

    def reduce(self, tensors: Tensors, opts: Any = None) -> Work:
        opts, loan = opts or c10d.ReduceOptions(), Loan()
        x = _only(tensors, "reduce")
        array = loan.update(x) if self._comm.rank == opts.rootRank else loan.read(x)
        call = partial(self._comm.reduce, array, root=opts.rootRank, **operator_of(opts.reduceOp, x.dtype))
        return self._run("reduce", opts, [call], tensors, loan)

    def reduce_scatter(self, outputs: Tensors, inputs: list[Tensors], opts: Any = None) -> Work:
        opts, loan = opts or c10d.ReduceScatterOptions(), Loan()
        out, chunks = _only(outputs, "reduce_scatter"), self._one_each(_only(inputs, "reduce_scatter"))
        _want("reduce_scatter", out, chunks[0].dtype, chunks[self._comm.rank].numel())
        call = partial(
            self._comm.reduce_scatter,
            loan.read_all(chunks),
            loan.write(out),
            counts=_uneven([t.numel() for t in chunks]),
            **operator_of(opts.reduceOp, out.dtype),
        )
        return self._run("reduce_scatter", opts, [call], outputs, loan)

    def reduce_scatter_single(self, output: torch.Tensor, input: torch.Tensor, opts: Any = None) -> Work:
        return self._reduce_scatters("_reduce_scatter_base", [output], [input], opts)

    def reduce_scatter_single_coalesced(self, outputs: Tensors, inputs: Tensors, opts: Any = None) -> Work:
        return self._reduce_scatters("reduce_scatter_tensor_coalesced", outputs, inputs, opts)

    def _reduce_scatters(self, name: str, outputs: Tensors, inputs: Tensors, opts: Any) -> Work:
        opts, loan, calls = opts or c10d.ReduceScatterOptions(), Loan(), []
        for out, x in zip(outputs, inputs, strict=True):
            _want("reduce_scatter_tensor", x, out.dtype, out.numel() * self._comm.size)
            calls.append(
                partial(self._comm.reduce_scatter, loan.read(x), loan.write(out), **operator_of(opts.reduceOp, x.dtype))
            )
        return self._run(name, opts, calls, outputs, loan)

    # ---- One rank to all, all to one

    def broadcast(self, tensors: Tensors, opts: Any = None, *rest: Any, **named: Any) -> Any:
        if type(tensors) is not list or not isinstance(opts, c10d.BroadcastOptions):
            return self._spelled_out("broadcast", tensors, opts, *rest, **named)
        loan = Loan()
        x = _only(tensors, "broadcast")
        call = partial(self._comm.broadcast, loan.update(x), root=opts.rootRank)
        return self._run("broadcast", opts, [call], tensors, loan)

    def gather(self, outputs: list[Tensors], inputs: Tensors, opts: Any = None) -> Work:
        opts, loan = opts or c10d.GatherOptions(), Loan()
        x, out, result = _only(inputs, "gather"), None, []
        if self._comm.rank == opts.rootRank:
            result = self._one_each(_only(outputs, "gather"))
            for place in result:
                _want("gather", place, x.dtype, x.numel())
            out = loan.write_all(result)
        call = partial(self._comm.gather, loan.read(x), out, root=opts.rootRank)
        return self._run("gather", opts, [call], result, loan)

    def scatter(self, outputs: Tensors, inputs: list[Tensors], opts: Any = None) -> Work:
        opts, loan = opts or c10d.ScatterOptions(), Loan()
        out, x = _only(outputs, "scatter"), None
        if self._comm.rank == opts.rootRank:
            chunks = self._one_each(_only(inputs, "scatter"))
            for chunk in chunks:
                _want("scatter", chunk, out.dtype, out.numel())
            x = loan.read_all(chunks)
        call = partial(self._comm.scatter, x, loan.write(out), root=opts.rootRank)
        return self._run("scatter", opts, [call], outputs, loan)

    # ---- All to all

    def allgather(self, outputs: list[Tensors], inputs: Tensors, opts: Any = None, *rest: Any, **named: Any) -> Any:
        if type(inputs) is not list or not isinstance(opts, c10d.AllgatherOptions):
            return self._spelled_out("allgather", outputs, inputs, opts, *rest, **named)
        return self._allgathers("all_gather", outputs, inputs, opts)

    def allgather_coalesced(self, outputs: list[Tensors], inputs: Tensors, opts: Any = None) -> Work:
        # Here outputs are a list for each rank; elsewhere one for each input.
        by_input = [list(places) for places in zip(*self._one_each(outputs), strict=True)]
        return self._allgathers("all_gather_coalesced", by_input, inputs, opts)

    def _allgathers(self, name: str, outputs: list[Tensors], inputs: Tensors, opts: Any) -> Work:
        opts, loan, calls = opts or c10d.AllgatherOptions(), Loan(), []
        for places, x in zip(outputs, inputs, strict=True):
            places = self._one_each(places)
            _want("all_gather", x, places[0].dtype, places[self._comm.rank].numel())
            counts = _uneven([t.numel() * width(t) for t in places])
            calls.append(partial(self._comm.allgather, loan.read(x), loan.write_all(places), counts=counts))
        return self._run(name, opts, calls, [t for places in outputs for t in places], loan)

    def all_gather_single(self, output: torch.Tensor, input: torch.Tensor, opts: Any = None) -> Work:
        return self._allgather_singles("_all_gather_base", [output], [input], opts)

    def all_gather_single_coalesced(self, outputs: Tensors, inputs: Tensors, opts: Any = None) -> Work:
        return self._allgather_singles("all_gather_into_tensor_coalesced", outputs, inputs, opts)

    def _allgather_singles(self, name: str, outputs: Tensors, inputs: Tensors, opts: Any) -> Work:
        opts, loan, calls = opts or c10d.AllgatherOptions(), Loan(), []
        for out, x in zip(outputs, inputs, strict=True):
            _want("all_gather_into_tensor", out, x.dtype, x.numel() * self._comm.size)
            calls.append(partial(self._comm.allgather, loan.read(x), loan.write(out)))
        return self._run(name, opts, calls, outputs, loan)

    def alltoall(self, outputs: Tensors, inputs: Tensors, opts: Any = None) -> Work:
        opts, loan = opts or c10d.AllToAllOptions(), Loan()
        _want("all_to_all", inputs[0], outputs[0].dtype, inputs[0].numel())
        call = partial(
            self._comm.alltoall,
            loan.read_all(self._one_each(inputs)),
            loan.write_all(self._one_each(outputs)),
            send_counts=[t.numel() * width(t) for t in inputs],
            recv_counts=[t.numel() * width(t) for t in outputs],
        )
        return self._run("all_to_all", opts, [call], outputs, loan)

    def all_to_all_single(
        self,
        output: torch.Tensor,
        input: torch.Tensor,
        output_split_sizes: Sequence[int] = (),
        input_split_sizes: Sequence[int] = (),
        opts: Any = None,
    ) -> Work:
        opts, loan = opts or c10d.AllToAllOptions(), Loan()
        _want("all_to_all_single", input, output.dtype, input.numel())
        sent = self._split(input, input_split_sizes, "input")
        received = self._split(output, output_split_sizes, "output")
        call = partial(
            self._comm.alltoall, loan.read(input), loan.write(output), send_counts=sent, recv_counts=received
        )
        return self._run("all_to_all", opts, [call], [output], loan)

    def barrier(self, opts: Any = None) -> Work:
        opts = opts or c10d.BarrierOptions()
        return self._run("barrier", opts, [self._comm.barrier], [])

    # ---- Several calls as one

    def _start_coalescing(self, device: Any = None) -> None:
        self._coalesced = []

    def _end_coalescing(self, device: Any = None) -> Work:
        works, self._coalesced = self._coalesced or [], None
        return Works(works)

    # ---- What torch does not look at

    def _one_each(self, tensors: list[Any]) -> list[Any]:
        if len(tensors) != self._comm.size:
            raise InvalidArgument(f"rank {self._comm.rank} got {len(tensors)} tensors for {self._comm.size} ranks")
        return tensors

    def _split(self, tensor: torch.Tensor, sizes: Sequence[int], which: str) -> list[int]:
        """Elements of the core for each rank: sizes are along the first dimension, none means equal."""
        rows, ranks = (tensor.size(0) if tensor.dim() else 1), self._comm.size
        if not sizes:
            if rows % ranks:
                raise InvalidArgument(f"all_to_all_single: {rows} rows of {which} do not divide by {ranks} ranks")
            sizes = [rows // ranks] * ranks
        if len(sizes) != ranks or sum(sizes) != rows:
            raise InvalidArgument(f"all_to_all_single: {which}_split_sizes {list(sizes)} do not split {rows} rows")
        row = tensor.numel() // rows * width(tensor) if rows else 0
        return [size * row for size in sizes]

    reduce_scatter_tensor_coalesced = reduce_scatter_single_coalesced
    _reduce_scatter_base = reduce_scatter_single
    allgather_into_tensor_coalesced = all_gather_single_coalesced
    _allgather_base = all_gather_single
    alltoall_base = all_to_all_single


class Works(Work):
    """Several operations as one."""

    def __init__(self, works: Sequence[Work]) -> None:
        super().__init__(
            [part for work in works for part in work._parts], [tensor for work in works for tensor in work._result]
        )
        self._works = works
        self.ranges = tuple(noted for work in works for noted in work.ranges)

    def _settle(self) -> None:
        for work in self._works:
            work._settle()


def _only(things: Sequence[Any], operation: str) -> Any:
    if len(things) != 1:
        raise InvalidArgument(f"{operation}: got {len(things)} tensors, wanted one: a rank has one device")
    return things[0]


def _uneven(counts: list[int]) -> list[int] | None:
    return None if len(set(counts)) == 1 else counts


def _want(operation: str, tensor: torch.Tensor, dtype: torch.dtype, count: int) -> None:
    if tensor.dtype != dtype or tensor.numel() != count:
        raise InvalidArgument(f"{operation}: got {tensor.dtype}[{tensor.numel()}], wanted {dtype}[{count}]")
