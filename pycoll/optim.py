"""Data-parallel training: a wrapper that averages gradients over ranks before any torch optimizer's step."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.hooks import RemovableHandle

import pycoll
from pycoll.agree import check_agreement
from pycoll.buckets import Bucket, Named, plan
from pycoll.codec import Codec
from pycoll.compressed_bucket import CompressedBucket, broadcast_feedback, load_feedback, save_feedback
from pycoll.compression import Compression, Presence, clip_, compression_of
from pycoll.parameters import check_named, check_no_momentum, check_parameters, describe
from pycoll.replicate import broadcast_state_dict, broadcast_tensors
from pycoll.wrapped import WrappedOptimizer

if TYPE_CHECKING:
    from pycoll.comm import Communicator

__all__ = ["DistributedOptimizer"]

# Which live optimizer communicates a parameter's gradient, by the parameter's id: two would average it twice.
_owners: dict[int, weakref.ref[DistributedOptimizer]] = {}


class DistributedOptimizer(WrappedOptimizer):
    """Wraps a torch optimizer so that every rank steps with the mean of all ranks' gradients.

    ::

        comm = pycoll.init()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        optimizer = pycoll.DistributedOptimizer(optimizer, model.named_parameters())
        for x, y in my_share_of_the_data:
            optimizer.zero_grad()
            loss(model(x), y).backward()
            optimizer.step()

    Gradients lie in symmetric buckets (``comm.empty``) of one dtype each, filled in reverse parameter order;
    ``parameter.grad`` is a view of its bucket. A hook on each parameter counts gradients as the backward pass produces
    them, and a complete bucket is averaged in the background while the pass goes on. Buckets start in the same order on
    every rank, whatever the order of the hooks. ``step()`` starts what is left, waits for all, then steps.

    A parameter that gets a gradient on some ranks only counts as zero on the others. One that gets it nowhere keeps
    ``grad=None``, so that the wrapped optimizer skips it, as in a single process.

    If each rank's loss is a mean over equally many samples, the result is that of a single process with the joined
    batch, but for the order of summation. For uneven shares, scale each rank's sum by ranks / samples in total.

    Construction is collective: it checks that ranks have the same model, then broadcasts parameters and optimizer state
    from rank 0. Buffers (running statistics) are not the optimizer's: ``optimizer.broadcast(model.buffers())``.

    Works as any ``torch.optim.Optimizer`` does: learning-rate schedulers, ``state_dict``, closures. The wrapped one is
    ``optimizer.optimizer``. Gradients must not be read or changed between ``backward()`` and ``step()`` without a call
    of :meth:`synchronize` first; this is so for clipping and for ``torch.amp.GradScaler``.

    ``zero_grad(set_to_none=False)`` lets the backward pass accumulate straight into the bucket; after the default,
    ``None``, each new gradient is copied there.

    Args:
        optimizer: the optimizer to wrap. Its parameters are CPU tensors.
        named_parameters: ``model.named_parameters()``: names for messages; parameters among them that the optimizer
            does not have (frozen ones) are broadcast as well. Without it, names are ``group0.0``, ``group0.1``, ...
        comm: the ranks to average over, by default ``pycoll.init()``. Gradients travel on a duplicate of it, so that
            your own collectives cannot get between.
        bucket_bytes: at most this many bytes share a bucket (a larger parameter has one to itself).
        codec: how gradients are encoded on their way, ``pycoll.TopK(ratio=0.01)`` for example, alike on all ranks; with
            error feedback, whose residuals are kept by parameter and saved by ``state_dict()``. Small parameters,
            biases and normalisation stay dense. A :class:`pycoll.Compression` says all that differently, and clips, and
            corrects momentum.

    Raises:
        InvalidArgument: an argument is wrong; the sentence says which.
        MismatchError: ranks have different models, on every rank; names the first difference.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        named_parameters: Iterable[Named] | None = None,
        comm: Communicator | None = None,
        bucket_bytes: int = 25 << 20,
        codec: Codec | Compression | None = None,
    ) -> None:
        # Optimizer.__init__ is not called: groups, state and hooks live in the wrapped optimizer alone.
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise pycoll.InvalidArgument(f"optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}")
        if isinstance(optimizer, DistributedOptimizer):
            raise pycoll.InvalidArgument("optimizer is a DistributedOptimizer already")
        if isinstance(bucket_bytes, bool) or not isinstance(bucket_bytes, int) or bucket_bytes < 1:
            raise pycoll.InvalidArgument(f"bucket_bytes must be an integer of at least 1, got {bucket_bytes!r}")
        self.optimizer = optimizer
        self._named = check_named(named_parameters)
        named = self._name_all(strict=named_parameters is not None)
        check_parameters(named, _owners)
        self._bucket_bytes = bucket_bytes
        self._compression = compression_of(codec)
        if self._compression and self._compression.momentum:
            check_no_momentum(optimizer)
        self._buckets: list[Bucket | CompressedBucket] = []
        self._presence: Presence | None = None
        self._frozen: list[Named] = []
        self._launched = 0  # buckets started in this round, always the first ones
        self._syncing = True  # False inside no_sync()
        self._started = False  # a backward pass outside no_sync() has begun a round that is not finished
        self._averaged = False  # gradients are averages already, and no gradient came since
        self._handles: list[RemovableHandle] = []
        self._owned: list[int] = []
        self._comm: Communicator = (pycoll.init() if comm is None else comm).dup()
        self._finalizer = weakref.finalize(self, _release, self._handles, self._owned, self._comm)
        self._finalizer.atexit = False  # communicators know by themselves what an exit asks of them
        try:
            self._adopt(named)
        except pycoll.MismatchError:
            self._finalizer()
            raise
        self.broadcast_state()

    def __repr__(self) -> str:
        return f"DistributedOptimizer({self.optimizer!r}, ranks={self._comm.size}, buckets={len(self._buckets)})"

    def __getstate__(self) -> dict[str, Any]:
        raise TypeError("a DistributedOptimizer cannot be pickled or copied; save its state_dict()")

    def state_dict(self) -> dict[str, Any]:
        """The wrapped optimizer's state: a checkpoint loads with or without pycoll, on any number of ranks.

        With a codec, the key ``"pycoll"`` holds what this rank's error feedback has not sent yet, by parameter name: it
        differs from rank to rank, so each rank saves its own. Training goes on to the bit, but for PowerSGD, whose
        factors are estimated anew.
        """
        state = self.optimizer.state_dict()
        if not self._compression:
            return state
        seen = self._presence.seen() if self._presence else []
        return {**state, "pycoll": {**save_feedback(self._comm, self._buckets), "seen": seen}}

    def load_state_dict(self, state_dict: dict[str, Any] | Sequence[dict[str, Any]]) -> None:  # type: ignore[override]
        """Loads on this rank. If only rank 0 has the checkpoint, call :meth:`broadcast_state` everywhere after.

        state_dict: this rank's; or a list with every rank's, in rank order, also if there were more ranks or fewer: the
        residuals of ranks that are gone are added to those of the ranks that are there. A single rank's residuals are
        taken by the rank that saved them, and by no other.
        """
        states = [state_dict] if isinstance(state_dict, dict) else list(state_dict)
        self.optimizer.load_state_dict(states[0])
        saved = [state["pycoll"] for state in states if "pycoll" in state]
        load_feedback(self._comm, self._buckets, saved)
        if self._presence:
            self._presence.note({name for state in saved for name in state["seen"]})

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clears gradients. Collective after a backward pass whose step was skipped: what is under way is finished."""
        if self._started:
            self.synchronize()
        self.optimizer.zero_grad(set_to_none=set_to_none)
        self._averaged = False

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds parameters, as the wrapped optimizer does. Collective: they are compared and broadcast from rank 0."""
        if self._started:
            self.synchronize()
        self.optimizer.add_param_group(param_group)
        try:
            named = self._name_all(strict=False)[-len(self.param_groups[-1]["params"]) :]
            check_parameters(named, _owners)
            self._adopt(named)
        except pycoll.Error:
            self.optimizer.param_groups.pop()
            raise
        self.broadcast_state()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Averages what is not averaged yet, then lets the wrapped optimizer step. Collective.

        Args:
            closure: evaluates the model again and returns the loss. The loss is averaged over ranks as well, so that
                line searches (LBFGS) decide alike everywhere.

        Returns:
            What the wrapped optimizer returns: the (averaged) loss of the closure, or None.
        """
        if closure is None:
            self.synchronize()
            result = self.optimizer.step()
        else:
            result = self.optimizer.step(lambda: self._evaluate(closure))
        self._averaged = False
        return result

    # What this one adds.

    def synchronize(self) -> None:
        """Averages all gradients now and waits, so that they may be read or changed before ``step()``. Collective.

        ::

            loss.backward()
            optimizer.synchronize()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()  # does not average again
        """
        if not self._finalizer.alive:
            raise pycoll.Error(
                "DistributedOptimizer was closed; step with the optimizer that it wrapped, or build another"
            )
        if self._averaged:
            return
        for name, parameter in self._frozen:
            if parameter.grad is not None:
                raise pycoll.InvalidArgument(
                    f"parameter '{name}' has a gradient but was frozen when DistributedOptimizer was built; "
                    "close() that one and build another after unfreezing"
                )
        with torch.no_grad():
            if self._clips("before"):
                clip_(self._gradients(), self._compression.clip_norm)  # type: ignore[union-attr]
            while self._launched < len(self._buckets):
                self._launch_next()
            if self._presence:
                self._presence.launch()
            for bucket in self._buckets:
                bucket.finish()
            if self._presence:
                self._presence.finish()
            if self._clips("after"):
                clip_(self._gradients(), self._compression.clip_norm)  # type: ignore[union-attr]
        self._launched = 0
        self._started = False
        self._averaged = True

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Gradients of backward passes inside add up on this rank and are averaged with the next pass outside, or in
        ``step()``. For accumulation over micro-batches, and for models that reach a parameter in several passes."""
        before, self._syncing = self._syncing, False
        try:
            yield
        finally:
            self._syncing = before

    def broadcast(self, tensors: Iterable[torch.Tensor], root: int = 0) -> None:
        """Overwrites CPU tensors with rank `root`'s, for example ``model.buffers()``. Collective."""
        broadcast_tensors(self._comm, tensors, root)

    def broadcast_state(self, root: int = 0) -> None:
        """Overwrites parameters, optimizer state and hyperparameters with rank `root`'s. Collective."""
        if self._comm.size == 1:
            return
        own = [parameter for group in self.param_groups for parameter in group["params"]]
        known = {id(parameter) for parameter in own}
        self.broadcast(own + [parameter for _, parameter in self._named if id(parameter) not in known], root)
        broadcast_state_dict(self._comm, self.optimizer, root)
        if self._compression:
            broadcast_feedback(self._comm, self._buckets, root)

    def stats(self) -> dict[str, Any]:
        """What the gradients' communicator has done on this rank, bytes on the wire among them: see ``comm.stats``.

        With a codec, ``"buckets"`` says of each compressed bucket's last operation: ``parameters`` (names),
        ``elements``, ``density`` (part of the elements that the result carries), ``residual_norm``, ``wire_bytes``
        sent, and ``encode_seconds``, ``wire_seconds`` and ``decode_seconds``.
        """
        stats: dict[str, Any] = dict(self._comm.stats())
        if self._compression:
            stats["buckets"] = [bucket.stats() for bucket in self._compressed()]
        return stats

    def close(self) -> None:
        """Removes the hooks and closes the gradients' communicator; the wrapped optimizer stays usable. Dropping the
        last reference does the same."""
        if not self._finalizer.alive:
            return
        for bucket in self._buckets:
            for slot in bucket.slots:
                if slot.parameter.grad is slot.view:
                    slot.parameter.grad = slot.view.clone()  # the bucket's memory goes
        self._buckets = []
        self._finalizer()

    # Inside.

    def _name_all(self, *, strict: bool) -> list[Named]:
        """The optimizer's parameters in order, each with its name."""
        names = {id(parameter): name for name, parameter in self._named}
        named: list[Named] = []
        for g, group in enumerate(self.optimizer.param_groups):
            own_names = group.get("param_names")
            for i, parameter in enumerate(group["params"]):
                if strict and id(parameter) not in names:
                    raise pycoll.InvalidArgument(
                        f"named_parameters lacks parameter {i} of group {g}, {describe(parameter)}; "
                        "pass model.named_parameters() of the model that the optimizer trains"
                    )
                default = own_names[i] if own_names else f"group{g}.{i}"
                named.append((names.get(id(parameter), default), parameter))
        return named

    def _adopt(self, named: list[Named]) -> None:
        """Takes parameters in: compares them over ranks, makes their buckets, hooks them up."""
        facts = [
            ("bucket_bytes", str(self._bucket_bytes)),
            ("codec", str(self._compression)),
            ("the optimizer", type(self.optimizer).__name__),
        ]
        facts += [(f"parameter {i}", f"'{name}' {describe(parameter)}") for i, (name, parameter) in enumerate(named)]
        check_agreement(self._comm, "DistributedOptimizer", facts)
        self._frozen += [entry for entry in named if not entry[1].requires_grad]
        how = self._compression
        if self._comm.size == 1 and not how:
            return
        trained = [entry for entry in named if entry[1].requires_grad]
        for members in plan(trained, self._bucket_bytes, lambda p: (p.dtype, bool(how and how.takes(p)))):
            if how and how.takes(members[0][1]):
                self._buckets.append(CompressedBucket(self._comm, members, how))
            else:
                self._buckets.append(Bucket(self._comm, members, how.momentum if how else 0.0))
            for s, (_, parameter) in enumerate(members):
                hook = _hook(weakref.ref(self), len(self._buckets) - 1, s)
                self._handles.append(parameter.register_post_accumulate_grad_hook(hook))
                self._owned.append(id(parameter))
                _owners[id(parameter)] = weakref.ref(self)
        compressed = self._compressed()
        seen = self._presence.seen() if self._presence else []
        self._presence = Presence(self._comm, [s for b in compressed for s in b.slots]) if compressed else None
        if self._presence:
            self._presence.note(seen)

    def _on_gradient(self, b: int, s: int) -> None:
        """A backward pass has added to the gradient of slot `s` of bucket `b`."""
        self._averaged = False
        if not self._syncing:
            return
        bucket = self._buckets[b]
        slot = bucket.slots[s]
        if slot.ready:
            raise pycoll.Error(
                f"backward() reached parameter '{slot.name}' twice before step(): "
                "run all passes but the last inside no_sync()"
            )
        self._started = True
        slot.fill()
        slot.ready = True
        bucket.waiting -= 1
        if self._clips("before"):
            return  # the norm is known when all gradients are
        while self._launched < len(self._buckets) and self._buckets[self._launched].waiting == 0:
            self._launch_next()

    def _compressed(self) -> list[CompressedBucket]:
        return [bucket for bucket in self._buckets if isinstance(bucket, CompressedBucket)]

    def _clips(self, when: str) -> bool:
        how = self._compression
        return how is not None and how.clip_norm > 0 and how.clip == when

    def _gradients(self) -> list[torch.Tensor]:
        parameters = [p for group in self.param_groups for p in group["params"]]
        return [p.grad for p in parameters if p.grad is not None]

    def _launch_next(self) -> None:
        self._buckets[self._launched].launch()
        self._launched += 1

    def _evaluate(self, closure: Callable[[], Any]) -> Any:
        loss = closure()
        self.synchronize()
        if loss is None:
            return None
        mean = torch.as_tensor(loss, dtype=torch.float64).detach().clone().reshape(1)
        self._comm.allreduce(mean, op="avg")
        return mean[0].to(loss.dtype) if isinstance(loss, torch.Tensor) else float(mean[0])


def _hook(me: weakref.ref[DistributedOptimizer], b: int, s: int) -> Callable[[torch.Tensor], None]:
    # Holds neither the optimizer nor the parameter: a parameter must not keep itself alive through its own hook.
    def on_gradient(_: torch.Tensor) -> None:
        this = me()
        if this is not None:
            this._on_gradient(b, s)

    return on_gradient


def _release(handles: list[RemovableHandle], owned: list[int], comm: Communicator) -> None:
    for handle in handles:
        handle.remove()
    for parameter_id in owned:
        _owners.pop(parameter_id, None)
    comm.close()
