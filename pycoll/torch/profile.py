"""What torch's profiler shows of an operation: its name, the shapes of its tensors, the time until it has ended."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .work import Work


def watched() -> bool:
    """True while a profiler looks at this thread."""
    return bool(torch.autograd._profiler_enabled())


def enter(name: str, tensors: Sequence[torch.Tensor]) -> torch.ScriptObject:
    """Begins the range of an operation, which must follow at once."""
    return torch.autograd._record_function_with_args_enter(f"pycoll:{name}", *tensors)


def leave_with(work: Work, mark: torch.ScriptObject) -> None:
    """Ends the range when the operation has ended. work.wait() waits for that: afterwards a profiler may be asked."""
    ended: torch.futures.Future[None] = torch.futures.Future()
    work.ranges += (torch.ops.profiler._call_end_callbacks_on_jit_fut._RecordFunction(mark, ended),)
    # Another thread also where it has ended by now: torch takes what one thread begins and ends for synchronous.
    work.complete(ended)
