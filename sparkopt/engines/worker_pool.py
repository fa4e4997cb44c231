"""A worker pool: the tasks of one Spark job that stay, and answer the driver's questions over their connections."""

from __future__ import annotations

import contextlib
import logging
import pickle
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import wait
from typing import Any, TypeAlias

from sparkopt.blocks.descriptions import described
from sparkopt.blocks.store import BlockStore, OpenPartition
from sparkopt.engines.job import BackgroundJob
from sparkopt.launch.connections import Address, Connection, Listener
from sparkopt.values import dataclass

__all__ = ["Answer", "MissingBlocks", "Serving", "WorkerLostError", "WorkerPool"]

logger = logging.getLogger(__name__)

LEAST_POLL, MOST_POLL = 0.002, 0.05
"""Seconds between checks for new connections while some partition has no worker, at first and later."""
POLL_SHARE = 0.05
"""They are this share of the time that it has taken so far: a job that starts in 0.1 s does not wait half as long."""

GRACE = 5.0
"""Seconds that tasks have to end when they are asked to."""

ServingTask: TypeAlias = Callable[[Iterator[OpenPartition]], Iterable[str]]


@dataclass(frozen=True)
class Serving:
    """A worker's first message: the partitions that it serves; none where Spark gave it none."""

    partitions: Sequence[int]


@dataclass(frozen=True)
class Answer:
    """A worker's answer to a question."""

    results: Sequence[Any]


@dataclass(frozen=True)
class MissingBlocks:
    """A worker's answer where it cannot open the blocks of these partitions."""

    partitions: Sequence[int]


class WorkerLostError(Exception):
    """Some partition has no worker to serve it; the message says which, and why."""


class _Worker:
    """One task: its connection, and its partitions, which are known once it has opened them."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.partitions: frozenset[int] = frozenset()
        self.is_pending = False
        """Whether it was asked something that it has not answered."""


class WorkerPool:
    """The tasks of one Spark job, each of which serves some partitions until the pool is closed.

    The job starts at once, in a thread of its own. Spark runs a task that dies again; when that has connected, it is
    asked what is still open. Use the pool as a context manager, or call ``close``.

    Parameters
    ----------
    store : BlockStore
        Whose partitions are served.
    task_of : callable
        Takes the driver's address; returns the function that a task calls with its partitions. It connects, sends
        ``Serving``, then answers each question with ``Answer`` or ``MissingBlocks`` until the question is None. It
        yields messages that say what kept it from serving.
    tasks : int
        Number of tasks; all must be able to run at the same time.
    patience : float
        Seconds that a partition may stay without a worker.
    """

    def __init__(
        self, store: BlockStore, task_of: Callable[[Address], ServingTask], tasks: int, patience: float
    ) -> None:
        self._all, self._patience = frozenset(range(store.partitions)), patience
        self._workers: list[_Worker] = []
        self.waited = 0.0
        """Seconds of the last question until every partition had a worker."""
        self._listener = Listener.of(store.context)
        serving = store.map_tasks(task_of(self._listener.address), tasks)
        with described(store.session, "resident tasks"):  # which the job's own thread inherits
            self._job = BackgroundJob(store.context, serving.collect)

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def ask(self, question: Any) -> list[Any]:
        """Ask all workers, and return their results once every partition has been answered for.

        Raises
        ------
        WorkerLostError
            Where a partition is without a worker for too long, or its file is missing.
        """
        message = pickle.dumps(question, protocol=5)
        answers: dict[frozenset[int], Sequence[Any]] = {}
        since = begin = time.monotonic()
        self.waited, is_served = 0.0, False
        while (open_ := self._all.difference(*answers)) or not self._all:
            joined = self._take_joined()
            for worker in [*self._workers]:
                if not worker.is_pending and worker.partitions and worker.partitions <= open_:
                    self._send(worker, message)
            if not is_served:
                self.waited = time.monotonic() - begin
            is_served = open_.difference(*(worker.partitions for worker in self._workers)) == frozenset()
            is_opening = any(not worker.partitions for worker in self._workers)  # connected, still opening its blocks
            since = time.monotonic() if is_served or is_opening or joined else since
            self._check(open_, since)
            poll = min(MOST_POLL, max(LEAST_POLL, POLL_SHARE * (time.monotonic() - begin)))
            for worker in self._ready(1.0 if is_served else poll):
                self._receive(worker, answers)
        return [result for partitions in sorted(answers, key=min) for result in answers[partitions]]

    def close(self) -> None:
        """Let the tasks end, and the job with them; harmless when repeated."""
        self._take_joined()
        for worker in self._workers:
            with contextlib.suppress(OSError):
                worker.connection.send(None)
                worker.connection.close()
        self._workers = []
        self._listener.close()
        if not self._job.wait(GRACE):  # some task has not connected, and never will
            self._job.cancel()

    def _take_joined(self) -> bool:
        """Add the workers that have connected; return whether there were any."""
        joined = self._listener.joined()
        self._workers += map(_Worker, joined)
        return bool(joined)

    def _send(self, worker: _Worker, message: bytes) -> None:
        try:
            worker.connection.send_bytes(message)
            worker.is_pending = True
        except OSError as error:
            self._drop(worker, error)

    def _ready(self, timeout: float) -> list[_Worker]:
        """Return the workers that have sent something; wait so many seconds for one."""
        by_connection = {id(worker.connection): worker for worker in self._workers}
        if not by_connection:
            time.sleep(timeout)
            return []
        return [by_connection[id(one)] for one in wait([worker.connection for worker in self._workers], timeout)]

    def _receive(self, worker: _Worker, answers: dict[frozenset[int], Sequence[Any]]) -> None:
        try:
            received: Serving | Answer | MissingBlocks = worker.connection.recv()
        except (EOFError, OSError) as error:
            self._drop(worker, error)
            return
        match received:
            case Serving(partitions):
                self._assign(worker, frozenset(partitions))
            case MissingBlocks(partitions):
                raise WorkerLostError(f"the blocks of partitions {list(partitions)} are missing")
            case Answer(results):
                worker.is_pending = False
                answers[worker.partitions] = results

    def _assign(self, worker: _Worker, partitions: frozenset[int]) -> None:
        """Let the worker serve these partitions; an earlier copy of its task is dropped."""
        for other in [other for other in self._workers if other.partitions & partitions]:
            self._drop(other, None)
        worker.partitions = partitions
        if not partitions:  # Spark gave it nothing to do
            self._drop(worker, None)

    def _drop(self, worker: _Worker, error: BaseException | None) -> None:
        if error is not None:
            logger.warning("the task of partitions %s is gone (%r)", sorted(worker.partitions), error)
        with contextlib.suppress(OSError):
            worker.connection.close()
        self._workers.remove(worker)

    def _check(self, unanswered: frozenset[int], since: float) -> None:
        if not self._job.alive:
            reasons = self._job.result()
            raise WorkerLostError(reasons[0] if reasons else "the tasks ended before the fit did")
        if time.monotonic() - since > self._patience:
            missing = sorted(unanswered.difference(*(worker.partitions for worker in self._workers)))
            raise WorkerLostError(f"no task serves partitions {missing} after {self._patience:g} s")
