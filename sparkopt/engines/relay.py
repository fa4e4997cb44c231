"""Callbacks in the driver for a loop that runs elsewhere: each step is reported over a connection, and answered."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import wait
from typing import Any, TypeVar

from sparkopt.engines.job import BackgroundJob
from sparkopt.errors import IncompatibleError
from sparkopt.launch.connections import Address, Connection, Listener
from sparkopt.solver.callbacks import ProgressBar
from sparkopt.solver.problem import Problem
from sparkopt.solver.progress import Progress, runs_in_loop_process
from sparkopt.values import dataclass

__all__ = ["CallbackProxy", "Relay", "calls_driver", "without_driver"]

T = TypeVar("T")

POLL = 0.02
"""Seconds between checks of a job whose loop has not connected."""


class Relay:
    """The driver's side: calls the problems' callbacks when the loop reports a step. A context manager.

    Parameters
    ----------
    context : SparkContext
        Whose tasks run the loop.
    problems : sequence of Problem
        Their callbacks stay here, except those that run where the loop does.

    Attributes
    ----------
    problems : list of Problem
        What is sent to the loop.
    """

    def __init__(self, context: Any, problems: Sequence[Problem]) -> None:
        self._callbacks = [
            [one for one in problem.callbacks if not runs_in_loop_process(one)] for problem in problems
        ]
        self.problems = [
            replace(problem, callbacks=[one for one in problem.callbacks if runs_in_loop_process(one)])
            for problem in problems
        ]
        self._listener: Listener | None = None
        if any(self._callbacks):
            self._listener = Listener.of(context)

    @property
    def address(self) -> Address | None:
        """Where the loop connects; None where there is no callback to call."""
        return self._listener.address if self._listener else None

    def attend(self, job: BackgroundJob[T]) -> T:
        """Call the callbacks until the job ends; return what it returned."""
        listener, connections = self._listener, list[Any]()
        try:
            while listener is not None and not job.wait(0 if connections else POLL):
                connections += listener.joined()
                for one in wait(connections, timeout=1.0) if connections else ():  # without any it would only sleep
                    if not self._serve(one):
                        connections.remove(one)
            return job.result()
        finally:
            job.cancel()
            for one in connections:
                one.close()

    def _serve(self, connection: Any) -> bool:
        try:
            progress: Progress = connection.recv()
        except (EOFError, OSError):  # the loop has ended, or its task died, which the job reports
            connection.close()
            return False
        votes = [callback(progress) for callback in self._callbacks[progress.model]]
        with contextlib.suppress(OSError):
            connection.send(any(votes))
        return True

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *error: object) -> None:
        if self._listener is not None:
            self._listener.close()


def calls_driver(problems: Sequence[Problem]) -> bool:
    """Whether a callback must be called in the driver, other than to draw a progress bar."""
    return any(
        not runs_in_loop_process(one) and not isinstance(one, ProgressBar)
        for problem in problems
        for one in problem.callbacks
    )


def without_driver(engine: str, problems: Sequence[Problem]) -> list[Problem]:
    """Return the problems for tasks that do not reach the driver, as those of Spark Connect: without progress bars.

    Raises
    ------
    IncompatibleError
        Where another callback is to be called in the driver.
    """
    if calls_driver(problems):
        raise IncompatibleError(
            f"engine={engine!r} runs the loop on the server of Spark Connect, which does not reach this process to "
            "call callbacks. Use engine='driver', or 'auto', or a callback with in_loop_process = True."
        )
    return [
        replace(problem, callbacks=[one for one in problem.callbacks if runs_in_loop_process(one)])
        for problem in problems
    ]


@dataclass(frozen=True)
class CallbackProxy:
    """The loop's side: a callback that asks those in the driver."""

    connection: Connection

    def __call__(self, progress: Progress, /) -> bool:
        self.connection.send(replace(progress, take=None))  # the loop's state stays with the loop
        return bool(self.connection.recv())
