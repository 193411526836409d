"""Training over a parameter server: an optimizer whose step pushes gradients and pulls parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch

from ..buckets import Named
from ..errors import InvalidArgument
from ..wrapped import WrappedOptimizer
from .ending import Ending
from .parameter_server import ParameterServer
from .worker import Pending

if TYPE_CHECKING:
    from ..comm import Communicator


class PSOptimizer(Ending, WrappedOptimizer):
    """Wraps a torch optimizer so that the servers of a :class:`ParameterServer` make its steps.

    ::

        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with pycoll.PSOptimizer(optimizer, model.named_parameters(), servers=[0], workers=[1, 2]) as optimizer:
            if not optimizer.is_worker:
                optimizer.serve()
            else:
                for x, y in my_share_of_the_data:
                    optimizer.zero_grad()
                    loss(model(x), y).backward()
                    optimizer.step()

    By default every rank is both a worker and a server, and the script is that of :class:`DistributedOptimizer`; in
    mode "sync" so are the parameters, within the rounding of sums. Learning-rate schedulers work: servers take the
    options of the first worker's groups. Leave by ``close()`` or the ``with`` block.

    Args:
        delay: 0: step() returns with the parameters that follow from this push. 1: step() returns at once, with those
            that followed from the push before: communication hides behind the next forward and backward pass, and
            gradients lag one more update.
        optimizer, named_parameters, comm, others: as in :class:`ParameterServer`.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        named_parameters: Iterable[Named],
        comm: Communicator | None = None,
        *,
        delay: int = 0,
        **others: Any,
    ) -> None:
        if delay not in (0, 1) or isinstance(delay, bool):
            raise InvalidArgument(f"PSOptimizer: delay is {delay!r}, wanted 0 or 1")
        if isinstance(optimizer, WrappedOptimizer):
            raise InvalidArgument(f"PSOptimizer: optimizer is a {type(optimizer).__name__} already")
        self.server = ParameterServer(optimizer, named_parameters, comm, **others)
        self.optimizer = optimizer
        self._delay = delay
        self._pending: Pending | None = None

    @property
    def is_worker(self) -> bool:
        """True if this rank trains; else it calls serve()."""
        return self.server.is_worker

    def serve(self) -> None:
        """On a rank that is a server only: see :meth:`ParameterServer.serve`."""
        self.server.serve()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Pushes the gradients and pulls the parameters. In mode "sync" all workers call as often.

        closure: computes the loss and its gradients; once.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        gradients = {
            name: parameter.grad for name, parameter in self.server.named_parameters if parameter.grad is not None
        }
        if self._delay:
            gradients = {name: gradient.clone() for name, gradient in gradients.items()}
        pending = self.server.push_pull(gradients, wait=False)
        self.synchronize()  # behind the push, which says what its gradients were computed from
        self._pending = pending
        if not self._delay:
            self.synchronize()
        return loss

    def synchronize(self) -> None:
        """Waits for the pull under way, so that the parameters are those after the last step()."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.wait()

    def state_dict(self) -> dict[str, Any]:
        """The wrapped optimizer's, with the servers' state: a checkpoint loads with or without a parameter server.

        On workers. "pycoll" in it has what this worker's error feedback has not sent, and the servers' numbers of
        parameters that workers have in 16 bits or by way of `pull_codec`.
        """
        self.synchronize()
        state, saved = self.server.checkpoint()
        self.optimizer.state.clear()
        self.optimizer.state.update(state)
        return {**self.optimizer.state_dict(), "pycoll": saved}

    def load_state_dict(self, state_dict: Any) -> None:
        """Goes on from what state_dict() gave, or the wrapped optimizer's; load the model first. All workers call it.

        Servers take parameters and state from the lowest worker. What error feedback had not sent is taken by the rank
        that saved it, and by no other. What `pull_codec` had left out arrives at once.
        """
        self.synchronize()
        self.optimizer.load_state_dict({key: value for key, value in state_dict.items() if key != "pycoll"})
        # As it was saved: what the optimizer has loaded is in the types of the parameters.
        numbers = [number for group in state_dict["param_groups"] for number in group["params"]]
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        state = {p: state_dict["state"].get(number, {}) for p, number in zip(parameters, numbers, strict=True)}
        self.server.restore(self.optimizer, state, state_dict.get("pycoll"))

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Not possible: parameters are dealt out to servers once."""
        raise InvalidArgument("PSOptimizer: add groups to the optimizer before wrapping it")

    def stats(self) -> dict[str, Any]:
        """See :meth:`ParameterServer.stats`."""
        return self.server.stats()

    def close(self) -> None:
        """Waits for the last pull, then leaves: see :meth:`ParameterServer.close`."""
        try:
            self.synchronize()
        finally:
            self.server.close()

    def _fail(self, error: BaseException) -> None:
        self.server._fail(error)


__all__ = ["PSOptimizer"]
