"""Threads of numerical libraries inside a task: as many as the task has cores, so none is oversubscribed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sparkopt.machine.limits import numerical_libraries

__all__ = ["task_cores", "task_threads", "torch_threads"]


def task_cores() -> int:
    """Return the cores of the current task (``spark.task.cpus``); 1 outside of any."""
    from pyspark import TaskContext

    context = TaskContext.get()
    return max(1, context.cpus()) if context is not None else 1


class _Limits:
    """The limit on this process's numerical libraries, which its threads share: the last one to leave restores it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._limit: Any = None

    def enter(self) -> None:
        with self._lock:
            if not self._inside:
                self._limit = numerical_libraries().limit(limits=task_cores())
            self._inside += 1

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._limit.restore_original_limits()


_limits = _Limits()


@contextmanager
def task_threads() -> Iterator[None]:
    """Let BLAS and OpenMP use the task's cores and no more."""
    _limits.enter()
    try:
        yield
    finally:
        _limits.leave()


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
