"""A worker pool: the tasks of one Spark job that stay, and answer the driver's questions over their lines."""

from __future__ import annotations

import contextlib
import logging
import pickle
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any, TypeAlias

from sparkopt.blocks.store import BlockStore, Held
from sparkopt.engines.job import BackgroundJob
from sparkopt.engines.sockets import Address, Exchange

__all__ = ["Line", "WorkerLostError", "WorkerPool"]

logger = logging.getLogger(__name__)

GLANCE = 0.05
"""Seconds between looks for newcomers while somebody is missing."""

GRACE = 5.0
"""Seconds for tasks that were told to end."""

Line: TypeAlias = "Connection[Any, Any]"
Task: TypeAlias = Callable[[Iterator[Held]], Iterable[str]]


class WorkerLostError(Exception):
    """Some partition has no task to serve it; the message says which, and why."""


class _Member:
    """One task: its line, the partitions that it serves (known once it has opened them), and what it owes."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.partitions: frozenset[int] = frozenset()
        self.owes = False


class WorkerPool:
    """The tasks of one Spark job, each serving some partitions until dismissed.

    The job starts at once, in a thread of its own. A task that dies is run again by Spark; when it has dialled in, it
    is asked what is still open. Use it as a context manager, or call ``dismiss``.

    Parameters
    ----------
    store : BlockStore
        Whose partitions are served.
    hire : callable
        The driver's address to the function that a task calls with its partitions: it dials, sends the list of their
        numbers, then answers each question with a list of anything, or of the partitions whose blocks are missing.
        It yields in words what kept it from serving.
    tasks : int
        Number of tasks; all must be able to run at the same time.
    patience : float
        Seconds that a partition may stay without a task.
    """

    def __init__(self, store: BlockStore, hire: Callable[[Address], Task], tasks: int, patience: float) -> None:
        self._all, self._patience = frozenset(range(store.partitions)), patience
        self._members: list[_Member] = []
        self._exchange = Exchange.of(store.context)
        staying = store.map_tasks(hire(self._exchange.address), tasks)
        self._job = BackgroundJob(store.context, staying.collect)

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *error: object) -> None:
        self.dismiss()

    def ask(self, question: Any) -> list[Any]:
        """Put a question to all tasks, and return what they answer, once every partition has been answered for.

        Raises
        ------
        WorkerLostError
            Where a partition is without a task for too long, or its file is missing.
        """
        message = pickle.dumps(question, protocol=5)
        answers: dict[frozenset[int], list[Any]] = {}
        since = time.monotonic()
        while (open_ := self._all.difference(*answers)) or not self._all:
            newcomers = self._welcome()
            for member in [*self._members]:
                if not member.owes and member.partitions and member.partitions <= open_:
                    self._put(member, message)
            manned = open_.difference(*(member.partitions for member in self._members)) == frozenset()
            waiting = any(not member.partitions for member in self._members)  # dialled in, still opening its blocks
            since = time.monotonic() if manned or waiting or newcomers else since
            self._check(open_, since)
            for member in self._ready(GLANCE if not manned else 1.0):
                self._hear(member, answers)
        return [answer for partitions in sorted(answers, key=min) for answer in answers[partitions]]

    def dismiss(self) -> None:
        """Let the tasks end, and the job with them; harmless when repeated."""
        for member in [*self._members, *self._welcome()]:
            with contextlib.suppress(OSError):
                member.line.send(None)
                member.line.close()
        self._members = []
        self._exchange.close()
        if not self._job.wait(GRACE):  # some task has not dialled in, and never will
            self._job.cancel()

    def _welcome(self) -> list[_Member]:
        newcomers = [_Member(line) for line in self._exchange.arrived()]
        self._members += newcomers
        return newcomers

    def _put(self, member: _Member, message: bytes) -> None:
        try:
            member.line.send_bytes(message)
            member.owes = True
        except OSError as error:
            self._lose(member, error)

    def _ready(self, timeout: float) -> list[_Member]:
        by_line = {id(member.line): member for member in self._members}
        if not by_line:
            time.sleep(timeout)
            return []
        return [by_line[id(line)] for line in wait([member.line for member in self._members], timeout)]

    def _hear(self, member: _Member, answers: dict[frozenset[int], list[Any]]) -> None:
        try:
            said = member.line.recv()
        except (EOFError, OSError) as error:
            self._lose(member, error)
            return
        if not member.partitions:
            self._settle(member, frozenset(said))
        elif said and isinstance(said[0], int):
            raise WorkerLostError(f"the blocks of partitions {said} are missing")
        else:
            member.owes = False
            answers[member.partitions] = said

    def _settle(self, member: _Member, partitions: frozenset[int]) -> None:
        """Let the member serve these partitions; a copy that Spark ran earlier is let go."""
        for other in [other for other in self._members if other.partitions & partitions]:
            self._lose(other, None)
        member.partitions = partitions
        if not partitions:  # Spark gave it nothing to do
            self._lose(member, None)

    def _lose(self, member: _Member, error: BaseException | None) -> None:
        if error is not None:
            logger.warning("the task of partitions %s is gone (%r)", sorted(member.partitions), error)
        with contextlib.suppress(OSError):
            member.line.close()
        self._members.remove(member)

    def _check(self, unanswered: frozenset[int], since: float) -> None:
        if not self._job.alive:
            reasons = self._job.result()
            raise WorkerLostError(reasons[0] if reasons else "the tasks ended before the fit did")
        if time.monotonic() - since > self._patience:
            missing = sorted(unanswered.difference(*(member.partitions for member in self._members)))
            raise WorkerLostError(f"no task serves partitions {missing} after {self._patience:g} s")
