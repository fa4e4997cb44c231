"""A call of a pool: the items that wait, those in progress, and the results."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Hashable, MutableMapping, Sequence
from typing import Any

from sparkopt.errors import LostProcessError, SparkoptError
from sparkopt.machine.messages import Frame
from sparkopt.machine.worker import Failure, Returned, Surroundings

__all__ = ["Run"]

MOST_ATTEMPTS = 4
"""How often an item is run whose workers end unexpectedly: it may be the item that ends them."""

SHOWN = 200
"""Characters of an item in a message."""


class Run:
    """One function and its items. Its methods are called under the lock of the pool's workers, but for ``results``.

    Parameters
    ----------
    number : int
        Which call it is; unique in this process.
    function : callable
        What is applied.
    items : sequence
        To what.
    keys : sequence of hashable
        What a process keeps in memory for each item.
    is_pinned : bool, default False
        Whether keys are numbers of workers, and each item is for that one alone.

    Attributes
    ----------
    done : threading.Event
        Set when no item waits and none is in progress.
    """

    def __init__(
        self,
        number: int,
        function: Callable[[Any], Any],
        items: Sequence[Any],
        keys: Sequence[Hashable],
        is_pinned: bool = False,
    ) -> None:
        from pyspark.cloudpickle import dumps  # the script's own functions and classes by value; it needs no JVM

        self.number, self.surroundings, self.done = number, Surroundings.here(), threading.Event()
        self.function = Frame.of(function, dumps)
        self._keys, self._function, self._items, self._is_pinned = keys, function, items, is_pinned
        self._waiting: dict[int | None, deque[int]] = defaultdict(deque)
        self._results: list[Any] = [None] * len(items)
        self._attempts = [0] * len(items)
        self._unfinished = len(items)
        self._failure: tuple[int, Failure] | None = None
        self._is_cancelled = False

    @property
    def waiting(self) -> int:
        """How many items nobody has taken yet."""
        return sum(map(len, self._waiting.values()))

    @property
    def is_cancelled(self) -> bool:
        """Whether it was interrupted."""
        return self._is_cancelled

    def item(self, index: int) -> Frame:
        """Return an item, pickled now that it is sent: all of them together may not fit in memory."""
        from pyspark.cloudpickle import dumps

        return Frame.of(self._items[index], dumps)

    def assign(self, homes: MutableMapping[Hashable, int]) -> None:
        """Let each item wait for the worker that had its key before, or for any."""
        for index, key in enumerate(self._keys):
            self._waiting[key if self._is_pinned else homes.get(key)].append(index)  # type: ignore[index]

    def leave(self, worker: int) -> None:
        """Take note that a worker is gone: an item for it alone has nobody to run it."""
        if self._is_pinned:
            self._end(len(self._waiting.pop(worker, ())))

    def take(self, worker: int, homes: MutableMapping[Hashable, int], idle: Collection[int]) -> int | None:
        """Return an item for a worker: its own, else nobody's, else one whose worker is busy or gone."""
        if self._is_pinned:
            return self._waiting[worker].popleft() if self._waiting[worker] else None
        for owner in (worker, None):
            if self._waiting[owner]:
                index = self._waiting[owner].popleft()
                homes.setdefault(self._keys[index], worker)
                return index
        for owner, waiting in self._waiting.items():
            if waiting and owner not in idle:
                index = waiting.pop()
                homes[self._keys[index]] = worker  # for good: the other one has too much to do
                return index
        return None

    def finish(self, index: int, outcome: Returned | Failure) -> None:
        """Keep an item's result; after a failure, no further item begins."""
        if isinstance(outcome, Returned):
            self._results[index] = outcome.value
        else:
            if self._failure is None or index < self._failure[0]:
                self._failure = index, outcome
            self._drop_waiting()
        self._end(1)

    def lose(self, index: int, how: str) -> None:
        """Let an item run again whose worker ended, if it has not been tried too often."""
        self._attempts[index] += 1
        if self._is_pinned:
            self._end(1)
        elif self._attempts[index] >= MOST_ATTEMPTS:
            self.finish(index, Failure(self._lost(index, how), ""))
        elif self._failure is not None:
            self._end(1)
        else:
            self._waiting[None].appendleft(index)

    def cancel(self, error: BaseException) -> None:
        """Let no further item begin; ``results`` raises ``error``."""
        self._is_cancelled = True
        self._failure = self._failure or (0, Failure(error, ""))
        self._drop_waiting()

    def results(self) -> list[Any]:
        """Return the results, or raise what the first item that failed raised."""
        if self._failure is None:
            return self._results
        failure = self._failure[1]
        if isinstance(failure.error, SparkoptError) or not failure.trace:
            raise failure.error.with_traceback(None) from None
        raise failure.error from WorkerTraceback(failure.trace)

    def _drop_waiting(self) -> None:
        dropped = self.waiting
        self._waiting.clear()
        self._end(dropped)

    def _end(self, items: int) -> None:
        self._unfinished -= items
        if not self._unfinished:
            self.done.set()

    def _lost(self, index: int, how: str) -> LostProcessError:
        name = getattr(self._function, "__qualname__", type(self._function).__name__)
        item = repr(self._items[index])
        item = item if len(item) <= SHOWN else f"{item[:SHOWN]}…"
        return LostProcessError(
            f"the worker process of item {index} ({item}) of {name} ended {MOST_ATTEMPTS} times: the last time {how}."
        )


class WorkerTraceback(Exception):
    """The cause of an error that a worker's function raised: its frames there."""

    def __init__(self, trace: str) -> None:
        super().__init__(f"\n\n{trace.rstrip()}")
