"""Local methods: ranks train alone for many steps, and agree on what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from .agree import by_value, check_agreement
from .arguments import check_whole
from .buckets import Named
from .codec import Codec
from .errors import InvalidArgument, MismatchError
from .feedback import Feedback
from .powersgd import PowerSGD
from .replica import Flat, ReplicaOptimizer

if TYPE_CHECKING:
    from .comm import Communicator

Outer = Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]


class DiLoCo(ReplicaOptimizer):
    """Wraps a torch optimizer: each rank takes `every` steps alone, then an outer optimizer takes the mean of how far
    they went for a gradient (Douillard et al., arXiv 2311.08105).

    ::

        optimizer = torch.optim.AdamW(model.parameters())
        optimizer = pycoll.DiLoCo(optimizer, model.named_parameters(), every=50, codec=pycoll.Int4())
        ...  # train as ever
        optimizer.synchronize()  # now all ranks have the same model

    With `fragments` and `delay` it is Streaming DiLoCo (Douillard et al., arXiv 2501.18512): parts of the model are
    agreed on in turn, and each travels while the ranks go on. Inner optimizer state and buffers (running statistics)
    stay with their rank.

    Args:
        optimizer: the inner optimizer. Its parameters are real CPU tensors.
        named_parameters: ``model.named_parameters()``, for the names in messages.
        comm: the ranks, by default ``pycoll.init()``. Pseudo-gradients travel on a duplicate of it.
        every: steps from one agreement on a parameter to the next.
        outer: makes the outer optimizer of a list of parameters; alike on all ranks. By default SGD with a learning
            rate of 0.7 and Nesterov momentum of 0.9.
        codec: how pseudo-gradients are encoded, ``pycoll.Int4()`` for example; any but PowerSGD.
        feedback: error feedback; what a codec leaves out is added to the next pseudo-gradient.
        fragments: parts of the model, of about as many elements each, that take turns: every / fragments steps apart.
        delay: steps between the start of a fragment's allreduce and its use; below `every`. Only what the network does
            not manage in that time is waited for.
        alpha: part of its own parameters that a rank keeps when it takes the common ones, 0 to 1. By default 0 without
            a delay, so that ranks are the same to the bit after each agreement; else 0.5, as what was learnt during the
            delay is in the rank's own parameters only.

    Raises:
        InvalidArgument: an argument is wrong; the sentence says which.
        MismatchError: ranks have different models or arguments, on every rank.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        named_parameters: Iterable[Named] | None = None,
        comm: Communicator | None = None,
        *,
        every: int = 100,
        outer: Outer | None = None,
        codec: Codec | None = None,
        feedback: bool = True,
        fragments: int = 1,
        delay: int = 0,
        alpha: float | None = None,
    ) -> None:
        who = type(self).__name__
        check_whole(who, "every", every, 1)
        check_whole(who, "fragments", fragments, 1, every)
        check_whole(who, "delay", delay, 0, every - 1)
        if alpha is None:
            alpha = 0.5 if delay else 0.0
        if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not 0 <= alpha <= 1:
            raise InvalidArgument(f"{who}: alpha is {alpha!r}, wanted a number from 0 to 1")
        if codec is not None and (not isinstance(codec, Codec) or isinstance(codec, PowerSGD)):
            raise InvalidArgument(f"{who}: codec is {codec!r}, wanted one of pycoll.codec but PowerSGD")
        facts: dict[str, object] = {"every": every, "codec": codec, "feedback": feedback, "fragments": fragments}
        facts |= {"delay": delay, "alpha": float(alpha)}
        super().__init__(optimizer, named_parameters, comm, [(what, str(fact)) for what, fact in facts.items()], codec)
        self._every, self._delay, self._alpha, self._steps = every, delay, float(alpha), 0
        parts = _deal(self._trained, fragments)
        self._fragments = [_Fragment(self._comm, part, outer or _nesterov, codec, feedback) for part in parts]
        try:
            check_agreement(self._comm, who, [fact for fragment in self._fragments for fact in fragment.facts()])
        except MismatchError:
            self._comm.close()
            raise

    def _meet(self) -> None:
        self._steps += 1
        for i, fragment in enumerate(self._fragments):
            fragment.differs = True
            begin = self._every * (i + 1) // len(self._fragments)
            if self._steps >= begin and (self._steps - begin) % self._every == 0:
                fragment.launch()
            if self._steps >= begin + self._delay and (self._steps - begin - self._delay) % self._every == 0:
                fragment.merge(self._alpha)

    def synchronize(self) -> None:
        """Agrees on all parameters now, and waits: afterwards all ranks have the same, and a round begins. Collective.

        Where ranks have taken steps since they agreed last, this is a round cut short, an outer step as others are:
        training goes on otherwise than without it. Where they have not (after each `every` steps, without fragments,
        delay and alpha, or after another synchronize()), ranks have the same already, and nothing changes: evaluate
        there.
        """
        for fragment in self._fragments:
            if fragment.under_way:
                fragment.merge(self._alpha)
        behind = [fragment for fragment in self._fragments if fragment.differs]
        for fragment in behind:
            fragment.launch()
        for fragment in behind:
            fragment.merge(0.0)
        for fragment in self._fragments:
            fragment.show()
        self._steps = 0

    def state_dict(self) -> dict[str, Any]:
        """The wrapped optimizer's state, and under the key ``"pycoll"`` the common parameters, the outer optimizers'
        state, and what error feedback holds. Differs from rank to rank, so each rank saves its own; fragments under way
        are waited for, and go on from there after loading."""
        own = {"rank": self._comm.rank, "ranks": self._comm.size, "steps": self._steps}
        return {
            **self.optimizer.state_dict(),
            "pycoll": {**own, "fragments": [fragment.state_dict() for fragment in self._fragments]},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes what state_dict() gave. Parameters are loaded by you. Of another rank, or another number of ranks, it
        takes everything but what error feedback holds. Raises InvalidArgument for other fragments, and for a plain
        optimizer's."""
        own = self._own(state_dict, "fragments")
        counts = [saved["shared"].numel() for saved in own["fragments"]]
        wanted = [fragment.shared.numel() for fragment in self._fragments]
        if counts != wanted:
            raise InvalidArgument(
                f"{type(self).__name__}: the state has fragments of {counts} elements, wanted {wanted}"
            )
        self.optimizer.load_state_dict(state_dict)
        self._steps = own["steps"]
        same = (own["rank"], own["ranks"]) == (self._comm.rank, self._comm.size)
        for fragment, saved in zip(self._fragments, own["fragments"], strict=True):
            fragment.load_state_dict(saved, same)

    def stats(self) -> dict[str, Any]:
        """What the pseudo-gradients' communicator has done on this rank, bytes on the wire among them: see
        ``comm.stats``. ``"fragments"`` says of each its ``elements``, ``rounds`` and ``residual_norm``."""
        return {**super().stats(), "fragments": [fragment.stats() for fragment in self._fragments]}


class LocalSGD(DiLoCo):
    """Wraps a torch optimizer: each rank takes `every` steps alone, then parameters are averaged (Stich, arXiv
    1805.09767; with any optimizer, not SGD alone).

    It is DiLoCo whose outer optimizer goes all the way: arguments and methods are DiLoCo's.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        named_parameters: Iterable[Named] | None = None,
        comm: Communicator | None = None,
        *,
        every: int = 10,
        codec: Codec | None = None,
        feedback: bool = True,
        fragments: int = 1,
        delay: int = 0,
        alpha: float | None = None,
    ) -> None:
        super().__init__(
            optimizer,
            named_parameters,
            comm,
            every=every,
            outer=lambda parameters: torch.optim.SGD(parameters, lr=1.0),
            codec=codec,
            feedback=feedback,
            fragments=fragments,
            delay=delay,
            alpha=alpha,
        )


class _Fragment:
    """Parameters that travel together: what ranks agreed on last, and the pseudo-gradient on its way."""

    def __init__(
        self, comm: Communicator, parameters: Sequence[torch.Tensor], outer: Outer, codec: Codec | None, feedback: bool
    ) -> None:
        self._comm, self._codec = comm, codec
        self._flat = Flat(parameters)
        self.shared = torch.nn.Parameter(self._flat.read())
        self._outer = outer([self.shared])
        self._residual = torch.zeros(self._flat.count) if codec is not None and feedback else None
        self._feedback = Feedback(residual=self._residual)
        self._mean: torch.Tensor | None = None  # of pseudo-gradients, once the work is done
        self._work: Any = None
        self._rounds = 0
        self.differs = False  # there may be something in this rank's parameters that is not in the common ones

    def facts(self) -> list[tuple[str, str]]:
        """For check_agreement: the outer optimizer."""
        options = [
            (f"{option} of the outer optimizer", by_value(value))
            for group in self._outer.param_groups
            for option, value in group.items()
            if option != "params"
        ]
        return [("the outer optimizer", type(self._outer).__name__), *options]

    @property
    def under_way(self) -> bool:
        """True between launch() and merge()."""
        return self._mean is not None

    @torch.no_grad()
    def launch(self) -> None:
        """Starts to average how far the ranks went since they agreed last."""
        self._mean = self.shared.detach() - self._flat.read()
        if self._codec is None:
            self._work = self._comm.allreduce(self._mean, op="avg", wait=False)
        else:
            codec = self._codec.at(self._rounds)
            self._work = self._comm.allreduce(
                self._mean, op="avg", codec=codec, feedback=self._feedback, step=self._rounds, wait=False
            )
        self._rounds += 1

    @torch.no_grad()
    def merge(self, alpha: float) -> None:
        """Waits for the mean, lets the outer optimizer step, and takes the common parameters, but for alpha."""
        self._wait()
        self.shared.grad, self._mean = self._mean, None
        self._outer.step()
        self.shared.grad = None
        self.differs = alpha > 0
        self._flat.write(self.shared.lerp(self._flat.read(), alpha) if alpha else self.shared)

    @torch.no_grad()
    def show(self) -> None:
        """Takes the common parameters as they are."""
        self._flat.write(self.shared)

    def state_dict(self) -> dict[str, Any]:
        self._wait()
        kept = {"shared": self.shared.detach(), "mean": self._mean, "residual": self._residual}
        copies = {what: None if tensor is None else tensor.clone() for what, tensor in kept.items()}
        return {
            **copies,
            "outer": self._outer.state_dict(),
            "rounds": self._rounds,
            "differs": self.differs,
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any], same: bool) -> None:
        self._wait()
        self.shared.copy_(state["shared"])
        self._mean = None if state["mean"] is None else state["mean"].clone()
        self._outer.load_state_dict(state["outer"])
        self._rounds, self.differs = state["rounds"], state["differs"]
        if self._residual is not None:
            if same and state["residual"] is not None:
                self._residual.copy_(state["residual"])
            else:
                self._residual.zero_()

    def stats(self) -> dict[str, Any]:
        norm = 0.0 if self._residual is None else float(torch.linalg.vector_norm(self._residual))
        return {"elements": self._flat.count, "rounds": self._rounds, "residual_norm": norm}

    def _wait(self) -> None:
        if self._work is not None:
            self._work.wait()
            self._work = None


def _deal(parameters: Sequence[torch.Tensor], parts: int) -> list[list[torch.Tensor]]:
    """Each parameter to the part that has least, the largest first: alike on all ranks. Parts that get none are left
    out."""
    dealt: list[list[int]] = [[] for _ in range(parts)]
    counts = [0] * parts
    for i in sorted(range(len(parameters)), key=lambda i: (-parameters[i].numel(), i)):
        least = counts.index(min(counts))
        dealt[least].append(i)
        counts[least] += parameters[i].numel()
    return [[parameters[i] for i in sorted(part)] for part in dealt if part]


def _nesterov(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.7, momentum=0.9, nesterov=True)


__all__ = ["DiLoCo", "LocalSGD"]
