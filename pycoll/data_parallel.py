"""What the data-parallel optimizers have in common: they collect gradients in buckets while a backward pass goes on."""

from __future__ import annotations

import weakref
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.hooks import RemovableHandle

import pycoll
from pycoll.agree import check_agreement
from pycoll.buckets import Collector, Named
from pycoll.parameters import check_named, check_optimizer, check_parameters, describe
from pycoll.replicate import broadcast_tensors
from pycoll.wrapped import WrappedOptimizer

if TYPE_CHECKING:
    from pycoll.comm import Communicator

# Which live optimizer communicates a parameter's gradient, by the parameter's id: two would average it twice.
_owners: dict[int, weakref.ref[DataParallelOptimizer]] = {}


class DataParallelOptimizer(WrappedOptimizer):
    """Hooks on parameters count gradients, complete buckets start in the same order on every rank, a step waits for
    them. What a bucket does when it starts is the subclass's."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        named_parameters: Iterable[Named] | None,
        comm: Communicator | None,
        bucket_bytes: int,
    ) -> None:
        # Optimizer.__init__ is not called: groups, state and hooks live in the wrapped optimizer alone.
        check_optimizer(optimizer, DataParallelOptimizer)
        if isinstance(bucket_bytes, bool) or not isinstance(bucket_bytes, int) or bucket_bytes < 1:
            raise pycoll.InvalidArgument(f"bucket_bytes must be an integer of at least 1, got {bucket_bytes!r}")
        self.optimizer = optimizer
        self._named = check_named(named_parameters)
        named = self._name_all(strict=named_parameters is not None)
        check_parameters(named, _owners)
        self._refuse()
        self._bucket_bytes = bucket_bytes
        self._buckets: list[Collector] = []
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
        return f"{type(self).__name__}({self.optimizer!r}, ranks={self._comm.size}, buckets={len(self._buckets)})"

    def __getstate__(self) -> dict[str, Any]:
        raise TypeError(f"a {type(self).__name__} cannot be pickled or copied; save its state_dict()")

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clears gradients. Collective after a backward pass whose step was skipped: what is under way is finished."""
        if self._started:
            self._settle()
        self.optimizer.zero_grad(set_to_none=set_to_none)
        self._averaged = False

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds parameters, as the wrapped optimizer does. Collective: they are compared and broadcast from rank 0."""
        if self._started:
            self._average()
        self.optimizer.add_param_group(param_group)
        try:
            named = self._name_all(strict=False)[-len(self.param_groups[-1]["params"]) :]
            check_parameters(named, _owners)
            self._adopt(named)
        except pycoll.Error:
            self.optimizer.param_groups.pop()
            raise
        self.broadcast_state()

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

    @abstractmethod
    def broadcast_state(self, root: int = 0) -> None:
        """Makes ranks alike. Collective."""

    def stats(self) -> dict[str, Any]:
        """What the gradients' communicator has done on this rank, bytes on the wire among them: see ``comm.stats``."""
        return dict(self._comm.stats())

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
        self._started = False
        self._finalizer()

    @property
    def _step_supports_amp_scaling(self) -> bool:
        # GradScaler.step() asks, before it looks at gradients: on ranks that find different ones infinite, some would
        # step and others not. False: it unscales by itself, as it could not tell a wrapped fused optimizer to.
        if self._buckets and not self._averaged:
            raise pycoll.Error("GradScaler has to see averages: call the optimizer's synchronize() before the scaler")
        return False

    # What a subclass says.

    def _refuse(self) -> None:
        """Raises InvalidArgument for a wrapped optimizer that this kind cannot serve."""

    def _facts(self) -> list[tuple[str, str]]:
        """Settings that ranks must have alike."""
        return []

    @abstractmethod
    def _make_buckets(self, trained: list[Named]) -> Sequence[Collector]:
        """Buckets for new parameters; the same on every rank. Collective."""

    @abstractmethod
    def _finish(self) -> None:
        """Starts the buckets that are left, and waits for all."""

    def _holds(self) -> bool:
        """True if no bucket may start before all gradients are there."""
        return False

    # Inside.

    def _average(self) -> None:
        """Averages all gradients now and waits. Collective."""
        self._check_open()
        if self._averaged:
            return
        for name, parameter in self._frozen:
            if parameter.grad is not None:
                raise pycoll.InvalidArgument(
                    f"parameter '{name}' has a gradient but was frozen when {type(self).__name__} was built; "
                    "close() that one and build another after unfreezing"
                )
        for bucket in self._buckets:
            bucket.check_untouched()
        self._settle()

    def _check_open(self) -> None:
        if not self._finalizer.alive:
            raise pycoll.Error(
                f"{type(self).__name__} was closed; step with the optimizer that it wrapped, or build another"
            )

    def _settle(self) -> None:
        with torch.no_grad():
            self._finish()
        self._launched = 0
        self._started = False
        self._averaged = True

    def _broadcast_parameters(self, root: int) -> None:
        own = [parameter for group in self.param_groups for parameter in group["params"]]
        known = {id(parameter) for parameter in own}
        self.broadcast(own + [parameter for _, parameter in self._named if id(parameter) not in known], root)

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
        groups = {id(p): f" in group {g}" for g, group in enumerate(self.param_groups) for p in group["params"] if g}
        facts = [("bucket_bytes", str(self._bucket_bytes)), *self._facts()]
        facts += [("the optimizer", type(self.optimizer).__name__)]
        facts += [
            (f"parameter {i}", f"'{name}' {describe(parameter)}{groups.get(id(parameter), '')}")
            for i, (name, parameter) in enumerate(named)
        ]
        check_agreement(self._comm, type(self).__name__, facts)
        self._frozen += [entry for entry in named if not entry[1].requires_grad]
        for bucket in self._make_buckets([entry for entry in named if entry[1].requires_grad]):
            self._buckets.append(bucket)
            for s, slot in enumerate(bucket.slots):
                hook = _hook(weakref.ref(self), len(self._buckets) - 1, s)
                self._handles.append(slot.parameter.register_post_accumulate_grad_hook(hook))
                self._owned.append(id(slot.parameter))
                _owners[id(slot.parameter)] = weakref.ref(self)

    def _on_gradient(self, b: int, s: int) -> None:
        """A backward pass has added to the gradient of slot `s` of bucket `b`."""
        bucket = self._buckets[b]
        slot = bucket.slots[s]
        if slot.ready:
            raise pycoll.Error(
                f"backward() reached parameter '{slot.name}' twice before step(): "
                "run all passes but the last inside no_sync()"
            )
        self._averaged = False
        if not self._syncing:
            return
        self._started = True
        bucket.receive(slot)
        if self._holds():
            return
        while self._launched < len(self._buckets) and self._buckets[self._launched].waiting == 0:
            self._launch_next()

    def _launch_next(self) -> None:
        bucket = self._buckets[self._launched]
        bucket.launch()
        bucket.note()
        self._launched += 1

    def _launch_rest(self) -> None:
        while self._launched < len(self._buckets):
            self._launch_next()

    def _evaluate(self, closure: Callable[[], Any]) -> Any:
        """The closure's loss, averaged over ranks, with averaged gradients."""
        loss = closure()
        self._average()
        if loss is None:
            return None
        mean = torch.as_tensor(loss, dtype=torch.float64).detach().clone().reshape(1)
        self._comm.allreduce(mean, op="avg")
        return mean[0].to(loss.dtype) if isinstance(loss, torch.Tensor) else float(mean[0])


def _hook(me: weakref.ref[DataParallelOptimizer], b: int, s: int) -> Callable[[torch.Tensor], None]:
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
