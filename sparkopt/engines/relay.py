"""Callbacks in the driver for a loop that runs elsewhere: each step is told over a line, and answered."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from sparkopt.engines.job import BackgroundJob
from sparkopt.engines.sockets import Address, Exchange
from sparkopt.solver.loop import Problem, Progress, runs_beside_loop

__all__ = ["Messenger", "Relay"]

T = TypeVar("T")

GLANCE = 0.02
"""Seconds between looks at a job whose loop has not dialled in."""


class Relay:
    """The driver's side: calls the problems' callbacks when the loop tells of a step. A context manager.

    Parameters
    ----------
    context : SparkContext
        Whose tasks run the loop.
    problems : sequence of Problem
        Their callbacks stay here, but for those that run beside the loop.

    Attributes
    ----------
    problems : list of Problem
        What goes to the loop.
    """

    def __init__(self, context: Any, problems: Sequence[Problem]) -> None:
        self._callbacks = [[one for one in problem.callbacks if not runs_beside_loop(one)] for problem in problems]
        self.problems = [
            replace(problem, callbacks=[one for one in problem.callbacks if runs_beside_loop(one)])
            for problem in problems
        ]
        self._exchange = Exchange.of(context) if any(self._callbacks) else None

    @property
    def address(self) -> Address | None:
        """Where the loop dials; None where nobody listens."""
        return self._exchange.address if self._exchange else None

    def attend(self, job: BackgroundJob[T]) -> T:
        """Serve the callbacks until the job ends; return what it returned."""
        exchange, lines = self._exchange, list[Any]()
        try:
            while exchange is not None and not job.wait(0 if lines else GLANCE):
                lines += exchange.arrived()
                for line in wait(lines, timeout=1.0) if lines else ():  # without lines it would only sleep
                    if not self._serve(line):
                        lines.remove(line)
            return job.result()
        finally:
            job.cancel()
            for line in lines:
                line.close()

    def _serve(self, line: Any) -> bool:
        try:
            progress: Progress = line.recv()
        except (EOFError, OSError):  # the loop has ended, or its task died, which the job tells
            line.close()
            return False
        wishes = [callback(progress) for callback in self._callbacks[progress.model]]
        with contextlib.suppress(OSError):
            line.send(any(wishes))
        return True

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *error: object) -> None:
        if self._exchange is not None:
            self._exchange.close()


@dataclass(frozen=True)
class Messenger:
    """The loop's side: a callback that asks those in the driver."""

    line: Connection[Any, Any]

    def __call__(self, progress: Progress, /) -> bool:
        self.line.send(replace(progress, take=None))  # the loop's state stays with the loop
        return bool(self.line.recv())
