"""Threads of numerical libraries inside a task: as many as the task has cores, so none is oversubscribed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["task_cores", "task_threads", "torch_threads"]


def task_cores() -> int:
    """Return the cores of the current task (``spark.task.cpus``); 1 outside of any."""
    from pyspark import TaskContext

    context = TaskContext.get()
    return max(1, context.cpus()) if context is not None else 1


@contextmanager
def task_threads() -> Iterator[None]:
    """Let BLAS and OpenMP use the task's cores and no more."""
    from threadpoolctl import threadpool_limits  # here, since only tasks need it

    with threadpool_limits(limits=task_cores()):
        yield


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let PyTorch use ``count`` threads for a while: as many as the task has cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
