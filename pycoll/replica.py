"""What optimizers have in common that step on each rank alone, and let the ranks' parameters meet afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch

import pycoll
from pycoll.agree import check_agreement
from pycoll.buckets import Named
from pycoll.parameters import check_named, check_parameters, describe
from pycoll.replicate import broadcast_state_dict, broadcast_tensors, group_facts
from pycoll.wrapped import WrappedOptimizer

if TYPE_CHECKING:
    from pycoll.codec import Codec
    from pycoll.comm import Communicator


class Flat:
    """Parameters side by side in one array, and back. Its memory is not theirs: numbers are copied, and converted."""

    def __init__(self, parameters: Sequence[torch.Tensor]) -> None:
        self._parameters = parameters
        self.count = sum(p.numel() for p in parameters)
        double = any(p.dtype == torch.float64 for p in parameters)
        self.dtype = torch.float64 if double else torch.float32

    def read(self) -> torch.Tensor:
        """A new array of the parameters as they are."""
        parts = [p.detach().reshape(-1).to(self.dtype) for p in self._parameters]
        return torch.cat(parts) if parts else torch.empty(0, dtype=self.dtype)

    def write(self, values: torch.Tensor) -> None:
        """Overwrites the parameters."""
        for part, parameter in zip(values.split([p.numel() for p in self._parameters]), self._parameters, strict=True):
            parameter.detach().copy_(part.view(parameter.shape))


class ReplicaOptimizer(WrappedOptimizer):
    """Wraps an optimizer of each rank's own model. Construction is collective: ranks compare their models, and take
    parameters and optimizer state of rank 0.

    facts: what must be alike on all ranks besides the models; pairs of what it is and what is so. codec: of what
    travels, for which no trained parameter may be float64.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        named_parameters: Iterable[Named] | None,
        comm: Communicator | None,
        facts: Sequence[tuple[str, str]],
        codec: Codec | None,
    ) -> None:
        # Optimizer.__init__ is not called: groups, state and hooks live in the wrapped optimizer alone.
        who = type(self).__name__
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise pycoll.InvalidArgument(f"optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}")
        if isinstance(optimizer, WrappedOptimizer):
            raise pycoll.InvalidArgument(f"optimizer is a {type(optimizer).__name__}, which {who} cannot wrap")
        self.optimizer = optimizer
        given = {id(parameter): name for name, parameter in check_named(named_parameters)}
        named = [
            (given.get(id(parameter), f"group{g}.{i}"), parameter)
            for g, group in enumerate(optimizer.param_groups)
            for i, parameter in enumerate(group["params"])
        ]
        check_parameters(named, {})
        for name, parameter in named:
            if parameter.is_complex():
                raise pycoll.InvalidArgument(f"parameter '{name}' is {parameter.dtype}; wanted real numbers")
        parent = pycoll.init() if comm is None else comm
        for name, parameter in named:
            if codec is not None and parameter.requires_grad and parameter.dtype == torch.float64:
                raise pycoll.InvalidArgument(
                    f"{who}: on rank {parent.rank} parameter '{name}' is float64; {codec!r} wants float32 or shorter"
                )
        self._trained = [parameter for _, parameter in named if parameter.requires_grad]
        self._comm: Communicator = parent.dup()
        models = [(f"parameter {i}", f"'{name}' {describe(parameter)}") for i, (name, parameter) in enumerate(named)]
        groups = group_facts(optimizer, {id(parameter): name for name, parameter in named})
        try:
            check_agreement(self._comm, who, [*facts, ("the optimizer", type(optimizer).__name__), *models, *groups])
        except pycoll.Error:
            self._comm.close()
            raise
        if self._comm.size > 1:
            broadcast_tensors(self._comm, [parameter for _, parameter in named], 0)
            broadcast_state_dict(self._comm, optimizer, 0)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.optimizer!r}, ranks={self._comm.size})"

    def __getstate__(self) -> dict[str, Any]:
        raise TypeError(f"a {type(self).__name__} cannot be pickled or copied; save its state_dict()")

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clears this rank's gradients."""
        self.optimizer.zero_grad(set_to_none=set_to_none)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Refused: what travels is settled at the start."""
        raise pycoll.InvalidArgument(
            f"add_param_group: a {type(self).__name__} has its parameters from the start; close() it and build another"
        )

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """The wrapped optimizer's step, of this rank alone; then what the ranks do together. Collective.

        Returns what the wrapped optimizer returns.
        """
        result = self.optimizer.step() if closure is None else self.optimizer.step(closure)
        self._meet()
        return result

    def _meet(self) -> None:
        """What ranks do together after a step."""
        raise NotImplementedError

    def _own(self, state_dict: dict[str, Any], part: str) -> dict[str, Any]:
        """What state_dict() saved besides the wrapped optimizer's. Raises InvalidArgument where that is not there."""
        own = state_dict.get("pycoll")
        if own is None or part not in own:
            came = "one without 'pycoll' in it" if own is None else f"one whose 'pycoll' has {', '.join(own)}"
            raise pycoll.InvalidArgument(
                f"load_state_dict: rank {self._comm.rank} wanted a state of a {type(self).__name__}, got {came}"
            )
        return own

    def stats(self) -> dict[str, Any]:
        """What the parameters' communicator has done on this rank, bytes on the wire among them: see ``comm.stats``."""
        return dict(self._comm.stats())

    def close(self) -> None:
        """Closes the communicator; the wrapped optimizer stays usable."""
        self._comm.close()
