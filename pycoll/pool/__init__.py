"""Master and workers: tasks for whichever rank is free. See docs/task-pool.md."""

from .pool import TaskPool

__all__ = ["TaskPool"]
