"""ProcessPool: this machine's worker processes, and who gives them what to do."""

from __future__ import annotations

import atexit
import contextlib
import itertools
import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TypeVar

from sparkopt.errors import ParameterError
from sparkopt.machine.limits import available_cores
from sparkopt.machine.runs import Run
from sparkopt.machine.worker import in_worker
from sparkopt.machine.workers import Workers
from sparkopt.validation import Interval, check
from sparkopt.values import dataclass

__all__ = ["ProcessPool"]

logger = logging.getLogger(__name__)
A = TypeVar("A")
T = TypeVar("T")

IDLE_SECONDS = 300.0
"""Seconds after which a worker without work ends."""

PROCESSES = "SPARKOPT_PROCESSES"
"""The environment variable that says how many workers the shared pool has."""

ROUND = 4
"""Items that each process is given between two movements of a progress bar."""

IMPORTS = ("sparkopt.blocks.machine",)
"""What the shared pool's workers import first."""

_numbers = itertools.count(1)
_pools: weakref.WeakSet[ProcessPool] = weakref.WeakSet()


class ProcessPool:
    """Worker processes of this machine, which apply functions to items.

    Workers are started when there is something to do, or by ``start``; they inherit no threads, have one core each,
    and stay for the next call until they were idle for a while. They end with this process, however it ends. One that
    is killed is replaced, and its items run again. Several threads may use a pool at the same time.

    Parameters
    ----------
    processes : int or None, default None
        How many; None is as many as this process may use cores. With 0 everything runs in this process.
    idle_seconds : float, default 300
        Seconds after which a worker without work ends.
    imports : sequence of str, default ()
        Modules that workers import while nothing else is to be done.

    Examples
    --------
    >>> from sparkopt.machine import ProcessPool
    >>> with ProcessPool(processes=2) as pool:
    ...     pool.run(abs, [-3, 4])
    [3, 4]
    """

    def __init__(
        self, processes: int | None = None, *, idle_seconds: float = IDLE_SECONDS, imports: Sequence[str] = ()
    ) -> None:
        if processes is not None:
            check("processes", processes, Interval(0, None, whole=True))
        self.processes = available_cores() if processes is None else processes
        if not sys.executable and self.processes:
            logger.warning("workers need a Python interpreter, and sys.executable is empty: all runs in this process")
            self.processes = 0
        self._idle_seconds, self._imports = idle_seconds, tuple(imports)
        self._at_end: weakref.finalize[[], ProcessPool] | None = None
        self._renew()
        _pools.add(self)

    @classmethod
    @contextlib.contextmanager
    def shared(cls) -> Iterator[ProcessPool]:
        """Yield the pool of this process, whose workers stay after the block for whoever is next.

        ``SPARKOPT_PROCESSES`` in the environment says how many, where it should not be one a core. With one core, and
        inside a worker, it has none: all runs in the process that asks.
        """
        yield _shared_pool()

    def start(self) -> None:
        """Start all workers in the background, so that they are ready when there is something to do."""
        self._workers.start(self.processes)

    def in_rounds(self, function: Callable[[A], T], items: Sequence[A]) -> Iterator[T]:
        """Yield what ``run`` returns, a few items of each process at a time, so that progress can be shown.

        Parameters
        ----------
        function, items
            As of ``run``, whose errors are raised here too.
        """
        size = ROUND * max(1, self.processes)
        for first in range(0, len(items), size):
            yield from self.run(function, items[first : first + size])

    def run(self, function: Callable[[A], T], items: Sequence[A], *, on: Sequence[Hashable] | None = None) -> list[T]:
        """Apply a function to each item, and return the results in the items' order.

        Parameters
        ----------
        function : callable
            Called with one item. It may be defined anywhere, also in the script or notebook that runs.
        items : sequence
            What it is applied to; they are pickled, arrays without a copy.
        on : sequence of hashable or None, default None
            A key for each item, of what a process keeps in memory for it: an item prefers the worker that had its key
            before. None takes the position in ``items``.

        Raises
        ------
        Exception
            What the function raised for an item, when the items that had been begun are done: an error of sparkopt
            as it is, any other with the worker's trace as its cause.
        LostProcessError
            Where workers ended unexpectedly, again and again, with the same item.
        """
        if not self.processes:
            return [function(item) for item in items]
        if not items:
            return []
        run = Run(next(_numbers), function, items, range(len(items)) if on is None else on)
        workers = self._workers
        workers.submit(run)
        try:
            run.done.wait()
        except BaseException:  # an interrupt: whatever it is, nothing is computed in vain
            workers.interrupt(run)
            raise
        return run.results()

    def tell(self, function: Callable[[None], object]) -> None:
        """Call a function with None in each worker that has been started, when it is free; do not wait for it.

        What a function returns or raises there is lost.
        """
        if self.processes:
            numbers = range(self.processes)
            self._workers.pin(Run(next(_numbers), function, [None] * self.processes, numbers, is_pinned=True))

    def close(self) -> None:
        """End all workers now, and wait for their end; a later ``run`` starts new ones."""
        workers = self._workers
        self._renew()
        for thread in workers.stop():
            thread.join()

    def __enter__(self) -> ProcessPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pids(self) -> list[int]:
        """Numbers of the worker processes that run now."""
        return self._workers.pids

    def _renew(self) -> None:
        """Have workers, none of which is started."""
        self._workers = Workers(self.processes, self._idle_seconds, self._imports)
        if self._at_end is not None:
            self._at_end.detach()
        self._at_end = weakref.finalize(self, self._workers.stop)  # also as this process ends

    def leave_to_parent(self) -> None:
        """Have no workers, in a process that was forked from theirs."""
        self._workers.forget()
        self._renew()


@dataclass
class _Shared:
    """The pool of this process."""

    lock: threading.Lock
    pool: ProcessPool | None = None


_shared = _Shared(threading.Lock())


def _shared_pool() -> ProcessPool:
    with _shared.lock:
        if _shared.pool is None:
            count = os.environ.get(PROCESSES)
            if count is not None and not count.isdigit():
                raise ParameterError(f"{PROCESSES} must be a number of processes. Got {count!r} instead.")
            processes = available_cores() if count is None else int(count)
            _shared.pool = ProcessPool(0 if in_worker() or processes == 1 else processes, imports=IMPORTS)
            atexit.register(_shared.pool.close)  # waits for their end, so that their time counts as this process's
        return _shared.pool


def _after_fork_in_child() -> None:
    _shared.lock = threading.Lock()
    for pool in list(_pools):
        pool.leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
