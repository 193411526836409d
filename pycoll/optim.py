"""Data-parallel training: a wrapper that averages gradients over ranks before any torch optimizer's step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from pycoll.buckets import Bucket, Named, plan
from pycoll.codec import Codec
from pycoll.compressed_bucket import CompressedBucket, broadcast_feedback, load_feedback, save_feedback
from pycoll.compression import Compression, Presence, clip_, compression_of
from pycoll.data_parallel import DataParallelOptimizer
from pycoll.parameters import check_no_momentum
from pycoll.replicate import broadcast_state_dict

if TYPE_CHECKING:
    from pycoll.comm import Communicator

__all__ = ["DistributedOptimizer"]


class DistributedOptimizer(DataParallelOptimizer):
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

    _buckets: list[Bucket | CompressedBucket]  # type: ignore[assignment]

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        named_parameters: Iterable[Named] | None = None,
        comm: Communicator | None = None,
        bucket_bytes: int = 25 << 20,
        codec: Codec | Compression | None = None,
    ) -> None:
        self._compression = compression_of(codec)
        self._presence: Presence | None = None
        super().__init__(optimizer, named_parameters, comm, bucket_bytes)

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
        self._average()

    def broadcast_state(self, root: int = 0) -> None:
        """Overwrites parameters, optimizer state and hyperparameters with rank `root`'s. Collective."""
        if self._comm.size == 1:
            return
        self._broadcast_parameters(root)
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

    # Inside.

    def _refuse(self) -> None:
        if self._compression and self._compression.momentum:
            check_no_momentum(self.optimizer)

    def _facts(self) -> list[tuple[str, str]]:
        return [("codec", str(self._compression))]

    def _adopt(self, named: list[Named]) -> None:
        super()._adopt(named)
        compressed = self._compressed()
        seen = self._presence.seen() if self._presence else []
        self._presence = Presence(self._comm, [s for b in compressed for s in b.slots]) if compressed else None
        if self._presence:
            self._presence.note(seen)

    def _make_buckets(self, trained: list[Named]) -> list[Bucket | CompressedBucket]:  # type: ignore[override]
        how = self._compression
        if self._comm.size == 1 and not how:
            return []
        buckets: list[Bucket | CompressedBucket] = []
        for members in plan(trained, self._bucket_bytes, lambda p: (p.dtype, bool(how and how.takes(p)))):
            if how and how.takes(members[0][1]):
                buckets.append(CompressedBucket(self._comm, members, how))
            else:
                buckets.append(Bucket(self._comm, members, how.momentum if how else 0.0))
        return buckets

    def _holds(self) -> bool:
        return self._clips("before")  # the norm is known when all gradients are

    def _finish(self) -> None:
        if self._clips("before"):
            clip_(self._gradients(), self._compression.clip_norm)  # type: ignore[union-attr]
        self._launch_rest()
        if self._presence:
            self._presence.launch()
        for bucket in self._buckets:
            bucket.finish()
        if self._presence:
            self._presence.finish()
        if self._clips("after"):
            clip_(self._gradients(), self._compression.clip_norm)  # type: ignore[union-attr]

    def _compressed(self) -> list[CompressedBucket]:
        return [bucket for bucket in self._buckets if isinstance(bucket, CompressedBucket)]

    def _clips(self, when: str) -> bool:
        how = self._compression
        return how is not None and how.clip_norm > 0 and how.clip == when

    def _gradients(self) -> list[torch.Tensor]:
        parameters = [p for group in self.param_groups for p in group["params"]]
        return [p.grad for p in parameters if p.grad is not None]
