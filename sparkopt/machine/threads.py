"""Threads for what is done in this process: NumPy, SciPy and Arrow let go of the interpreter while they compute."""

from __future__ import annotations

import contextvars
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["Threads"]

A = TypeVar("A")
T = TypeVar("T")

WORTH_SECONDS = 4e-3
"""Seconds of all items together, from which on threads save more than they cost."""


class Threads:
    """Applies functions to items in this process, in threads where the last items took long enough.

    Parameters
    ----------
    count : int
        Most threads; fewer than two are none.
    first_seconds : float, default 0
        Seconds that the first items are expected to take, each.

    Examples
    --------
    >>> Threads(2).run(abs, [-3, 4])
    [3, 4]
    """

    def __init__(self, count: int, first_seconds: float = 0.0) -> None:
        self.count, self._seconds = count, first_seconds

    def run(self, function: Callable[[A], T], items: Sequence[A]) -> list[T]:
        """Return the results in the items' order; an error is that of the first item that failed."""
        count, begin = min(self.count, len(items)), time.perf_counter()
        if count < 2 or self._seconds * len(items) < WORTH_SECONDS:
            count, found = 1, [function(item) for item in items]
        else:
            found = _in_threads(function, items, count)
        self._seconds = count * (time.perf_counter() - begin) / max(1, len(items))
        return found


def _in_threads(function: Callable[[A], T], items: Sequence[A], count: int) -> list[T]:
    with ThreadPoolExecutor(count) as executor:
        # each with what NumPy's error state and others are here
        futures = [executor.submit(contextvars.copy_context().run, function, item) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException:  # nothing more begins, also where it is an interrupt
            executor.shutdown(wait=False, cancel_futures=True)
            raise
