"""Data-parallel training with the optimizer's state divided over ranks (ZeRO, Rajbhandari et al., arXiv 1910.02054)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import pycoll
from pycoll.buckets import Named, plan
from pycoll.data_parallel import DataParallelOptimizer
from pycoll.replicate import broadcast_object, broadcast_state_dict, gather_objects
from pycoll.shard_state import Part, State, assemble, by_parameter, check_saved
from pycoll.sharded_bucket import Layout, Piece, ShardedBucket, Stage, by_elements, by_parameters, stages_of

if TYPE_CHECKING:
    from pycoll.comm import Communicator

__all__ = ["ShardedOptimizer"]

optim = torch.optim
#: What they do to an element depends on it, its gradient and its state alone. Of a subclass that is not known.
ELEMENTWISE = {
    *(optim.SGD, optim.Adam, optim.AdamW, optim.NAdam, optim.RAdam, optim.Adamax),
    *(optim.Adagrad, optim.Adadelta, optim.RMSprop, optim.Rprop, optim.ASGD),
}


class ShardedOptimizer(DataParallelOptimizer):
    """Wraps a torch optimizer as :class:`DistributedOptimizer` does, and keeps 1/ranks of its state on each rank.

    ::

        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        optimizer = pycoll.ShardedOptimizer(optimizer, model.named_parameters())
        for x, y in my_share_of_the_data:
            optimizer.zero_grad()
            loss(model(x), y).backward()
            optimizer.clip_grad_norm_(1.0)
            optimizer.step()

    During the backward pass means of gradients are scattered over ranks; ``step()`` steps this rank's part of the
    parameters, and gathers the parameters of all. Every rank ends with the same model, which is DistributedOptimizer's.

    Differences that can be seen: parameters become views of memory that ranks share. Gradients are None from when their
    bucket is complete, and after ``step()``: to accumulate, use :meth:`no_sync`. To clip, use :meth:`clip_grad_norm_`.
    :meth:`synchronize` makes gradients whole, for anything else that has to read or change them, and for
    ``torch.amp.GradScaler``. The keys of ``state`` are this rank's parts of parameters.

    As there, a parameter that gets a gradient on no rank is skipped, a closure's loss is averaged, construction checks
    that ranks have the same model, and rank 0's parameters and state are taken. A closure is evaluated once a step.

    Args:
        optimizer: the optimizer to wrap. It may have state, which is divided.
        named_parameters, comm, bucket_bytes: as DistributedOptimizer's.
        shard_gradients: gradients of a bucket leave once they are averaged, and each rank keeps 1/ranks of the means.
            There is no :meth:`synchronize` then.
        split: "elements" gives every rank as many elements of each bucket, wherever that cuts parameters; "parameters"
            gives whole ones, balanced by bytes. "auto" is the first for optimizers of torch that treat every element by
            itself (SGD, Adam, AdamW, Adagrad, RMSprop and their kin), and the second for all others (Muon, Adafactor,
            your own). One that looks across parameters (LBFGS) cannot be sharded.

    Raises:
        InvalidArgument: an argument is wrong; the sentence says which.
        MismatchError: ranks have different models, on every rank; names the first difference.
    """

    _buckets: list[ShardedBucket]  # type: ignore[assignment]

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        named_parameters: Iterable[Named] | None = None,
        comm: Communicator | None = None,
        bucket_bytes: int = 25 << 20,
        shard_gradients: bool = False,
        split: str = "auto",
    ) -> None:
        if split not in ("auto", "elements", "parameters"):
            raise pycoll.InvalidArgument(f'split is {split!r}, wanted "elements", "parameters" or "auto"')
        if split == "auto":
            split = "elements" if type(optimizer) in ELEMENTWISE else "parameters"
        self._split, self._shards_gradients = split, bool(shard_gradients)
        self._pieces: list[list[Piece]] = []  # of each group
        self._loads: list[int] = []  # bytes of each rank, where whole parameters are divided
        self._whole = False  # gradients are averages on every rank, not only this rank's pieces
        super().__init__(optimizer, named_parameters, comm, bucket_bytes)
        if self._comm.size > 1:
            broadcast_state_dict(self._comm, self.optimizer, 0)
        self._cut_state()

    # What any optimizer has.

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Averages what is not averaged yet, steps this rank's part of the parameters, gathers them. Collective.

        Returns:
            What the wrapped optimizer returns: the loss of the closure, averaged over ranks, or None.
        """
        if closure is None:
            self._average()
            return self._step(None)
        with torch.enable_grad():
            losses = [self._evaluate(closure)]

        def evaluated() -> Any:
            if not losses:
                raise pycoll.Error(f"{type(self.optimizer).__name__} evaluates its closure twice: it cannot be sharded")
            return losses.pop()

        return self._step(evaluated)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clears gradients. Collective after a backward pass whose step was skipped: what is under way is finished."""
        super().zero_grad(set_to_none)
        self._forget()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds parameters, as the wrapped optimizer does. Collective: they are compared and broadcast from rank 0."""
        super().add_param_group(param_group)
        self._cut_state()

    def state_dict(self) -> dict[str, Any]:
        """This rank's part of the state. Load it on the same rank, or the list of all ranks' on any number of ranks.

        An optimizer that is not sharded takes :meth:`full_state_dict` only.
        """
        return {
            "param_groups": self._packed_groups(),
            "shards": self._parts([piece for pieces in self._pieces for piece in pieces]),
            "rank": self._comm.rank,
            "ranks": self._comm.size,
        }

    def full_state_dict(self, root: int = 0) -> dict[str, Any] | None:
        """The state_dict of the wrapped optimizer without pycoll, on rank `root`; None on the others. Collective.

        State travels bucket by bucket, so that only `root` has more than its own and one bucket's at a time.
        """
        self._check_open()
        state, index = {}, self._index()
        for bucket in self._buckets:
            parts = by_parameter(gather_objects(self._comm, self._parts(bucket.pieces), root) or [])
            for slot in bucket.slots:
                i, parameter = index[id(slot.parameter)], slot.parameter
                if i in parts:
                    state[i] = assemble(parts[i], slot.name, parameter, 0, parameter.numel())
        if self._comm.rank != root:
            return None
        return {"state": state, "param_groups": copy.deepcopy(self._packed_groups())}

    def load_state_dict(self, state_dict: dict[str, Any] | Sequence[dict[str, Any]]) -> None:  # type: ignore[override]
        """Takes this rank's part. Not collective.

        state_dict: this rank's; or a list of every rank's, in rank order, also if there were more ranks or fewer; or a
        full one, of the optimizer without pycoll too.
        """
        states = [state_dict] if isinstance(state_dict, dict) else list(state_dict)
        check_saved(states, self.state_dict())
        if "shards" in states[0]:
            parts = by_parameter([state["shards"] for state in states])
        else:
            sizes = [p.numel() for group in self.param_groups for p in group["params"]]
            parts = {i: [(0, sizes[i], state)] for i, state in states[0]["state"].items()}
        state: dict[int, State] = {}
        groups, index = [], self._index()
        for saved, pieces in zip(states[0]["param_groups"], self._pieces, strict=True):
            first = len(state)
            for piece in pieces:
                own = parts.get(index[id(piece.slot.parameter)], [])
                state[len(state)] = assemble(own, piece.slot.name, piece.slot.parameter, piece.begin, piece.end)
            groups.append({**saved, "params": list(range(first, len(state)))})
        with self._own():
            self.optimizer.load_state_dict({"state": {i: s for i, s in state.items() if s}, "param_groups": groups})

    # What this one adds.

    def synchronize(self) -> None:
        """Makes gradients whole averages on every rank, so that they may be read or changed before ``step()``.
        Collective. It takes an allgather more, without which :meth:`clip_grad_norm_` does."""
        if self._shards_gradients:
            raise pycoll.InvalidArgument(
                "synchronize: no rank has whole gradients with shard_gradients=True; to clip, call clip_grad_norm_()"
            )
        self._average()
        if not self._whole:
            for bucket in self._buckets:
                bucket.gather_gradients()
        self._whole = True

    @torch.no_grad()
    def clip_grad_norm_(
        self, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
    ) -> torch.Tensor:
        """As torch.nn.utils.clip_grad_norm_, of the averages of all parameters here, before ``step()``. Collective.

        Returns:
            The norm before clipping, the same on every rank: a tensor without dimensions.
        """
        self._average()
        if self._whole:
            self._take_back()
        own = [piece.own for pieces in self._pieces for piece in pieces]
        means = [p.grad for p in own if p.grad is not None]
        means = means or [bucket.slots[0].parameter.new_zeros(1) for bucket in self._buckets[:1]]  # of the same type
        norm = torch.nn.utils.get_total_norm(means, norm_type)
        norms = self._comm.allgather(norm.to(torch.float64).reshape(1))
        total = torch.linalg.vector_norm(norms, norm_type).to(norm.dtype)
        if error_if_nonfinite and not total.isfinite():
            raise RuntimeError(f"clip_grad_norm_: the norm of order {norm_type} of the gradients is {total}")
        torch.nn.utils.clip_grads_with_norm_(own, max_norm, total)
        return total

    def broadcast_state(self, root: int = 0) -> None:
        """Overwrites parameters and hyperparameters with rank `root`'s; every rank keeps its part of the state.
        Collective."""
        if self._comm.size == 1:
            return
        self._broadcast_parameters(root)
        for group, saved in zip(
            self.param_groups, broadcast_object(self._comm, self._packed_groups(), root), strict=True
        ):
            group.update({**saved, "params": group["params"]})

    def close(self) -> None:
        """Removes the hooks, gives parameters memory of their own, and closes the gradients' communicator. The wrapped
        optimizer has only this rank's state: to go on without pycoll, load a :meth:`full_state_dict` into a new one."""
        for bucket in self._buckets:
            bucket.release()
        super().close()

    # Inside.

    def _refuse(self) -> None:
        if isinstance(self.optimizer, torch.optim.LBFGS):
            raise pycoll.InvalidArgument(
                "LBFGS looks at all parameters at once, so it cannot be sharded; use DistributedOptimizer"
            )

    def _facts(self) -> list[tuple[str, str]]:
        return [("shard_gradients", str(self._shards_gradients)), ("split", self._split)]

    def _make_buckets(self, trained: list[Named]) -> list[ShardedBucket]:  # type: ignore[override]
        group_of = {id(p): g for g, group in enumerate(self.param_groups) for p in group["params"]}
        self._pieces += [[] for _ in self.param_groups[len(self._pieces) :]]
        self._loads = self._loads or [0] * self._comm.size
        planned = plan(trained, self._bucket_bytes, lambda p: (group_of[id(p)], p.dtype))
        layouts = [self._lay_out([parameter for _, parameter in members]) for members in planned]
        stages = stages_of(self._comm, planned, layouts) if self._shards_gradients else {}
        buckets = []
        for members, layout in zip(planned, layouts, strict=True):
            dtype = members[0][1].dtype
            stage = stages.get(dtype) or Stage(self._comm, layout.count, dtype, 1)
            bucket = ShardedBucket(self._comm, members, layout, stage, keeps=not self._shards_gradients)
            self._pieces[group_of[id(members[0][1])]] += bucket.pieces
            buckets.append(bucket)
        return buckets

    def _lay_out(self, parameters: list[torch.Tensor]) -> Layout:
        if self._split == "elements":
            return by_elements(parameters, self._comm.size)
        return by_parameters(parameters, self._loads)

    def _on_gradient(self, b: int, s: int) -> None:
        if self._averaged and not self._whole:
            raise pycoll.Error("backward() between clip_grad_norm_() and step(): call step() or zero_grad() first")
        super()._on_gradient(b, s)

    def _finish(self) -> None:
        self._launch_rest()
        slots = [slot for bucket in self._buckets for slot in bucket.slots]
        present = np.array([slot.present for slot in slots], np.uint8)
        self._comm.allreduce(present, "max")
        for slot, somewhere in zip(slots, present.tolist(), strict=True):
            slot.present = bool(somewhere)
        for bucket in self._buckets:
            bucket.finish()
        self._whole = False

    @torch.no_grad()
    def _step(self, closure: Callable[[], Any] | None) -> Any:
        for bucket in self._buckets:
            bucket.bring_home()
        if self._whole:
            self._take_back()
        with self._own():
            result = self.optimizer.step() if closure is None else self.optimizer.step(closure)
        for work in [bucket.gather() for bucket in self._buckets]:
            work.wait()
        for bucket in self._buckets:
            for slot in bucket.slots:
                slot.parameter.grad = None
        self._averaged = False
        self._forget()
        return result

    def _take_back(self) -> None:
        for bucket in self._buckets:
            bucket.take_back()

    def _forget(self) -> None:
        self._whole = False
        for pieces in self._pieces:
            for piece in pieces:
                piece.own.grad = None

    @contextmanager
    def _own(self) -> Iterator[None]:
        """Within, the wrapped optimizer has this rank's pieces for parameters."""
        whole = [group["params"] for group in self.param_groups]
        for group, pieces in zip(self.param_groups, self._pieces, strict=True):
            group["params"] = [piece.own for piece in pieces]
        try:
            yield
        finally:
            for group, params in zip(self.param_groups, whole, strict=True):
                group["params"] = params

    def _cut_state(self) -> None:
        """State that the wrapped optimizer has of whole parameters becomes that of this rank's pieces."""
        state = self.optimizer.state
        for pieces in self._pieces:
            for piece in pieces:
                parameter = piece.slot.parameter
                if whole := state.get(parameter):
                    part = (0, parameter.numel(), whole)
                    state[piece.own] = assemble([part], piece.slot.name, parameter, piece.begin, piece.end)
        for group in self.param_groups:
            for parameter in group["params"]:
                state.pop(parameter, None)

    def _index(self) -> dict[int, int]:
        """What state_dict() calls a parameter, by its id."""
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        return {id(parameter): i for i, parameter in enumerate(parameters)}

    def _parts(self, pieces: Sequence[Piece]) -> dict[int, Part]:
        index, state = self._index(), self.optimizer.state
        return {
            index[id(piece.slot.parameter)]: (piece.begin, piece.end, dict(state.get(piece.own, {})))
            for piece in pieces
        }

    def _packed_groups(self) -> list[dict[str, Any]]:
        """As torch's state_dict() has them: parameters are numbered."""
        index = self._index()
        return [{**group, "params": [index[id(p)] for p in group["params"]]} for group in self.param_groups]
