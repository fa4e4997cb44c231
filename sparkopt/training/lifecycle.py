"""One attempt at a fit: it restores an earlier attempt's state, adds the callbacks, and closes them in the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from sparkopt.checkpoint.checkpointer import CheckpointRun
from sparkopt.errors import DivergedError
from sparkopt.solver.callbacks import close
from sparkopt.solver.problem import Problem, Solution
from sparkopt.solver.progress import Callback, Snapshot
from sparkopt.typing import Floats

__all__ = ["Attempt", "attempt"]


class Attempt:
    """Problems with their restored state and all callbacks.

    Checkpoints come before the users' own callbacks: a step is saved before anybody else's code runs.

    Attributes
    ----------
    problems : list of Problem
        What the loop is to solve.
    resumed_at : int
        Steps that an earlier attempt has taken.
    """

    def __init__(self, problems: Sequence[Problem], run: CheckpointRun | None, more: Sequence[Callback]) -> None:
        self._run = run
        restored = run.restore() if run else None
        starts: Sequence[Floats | Snapshot] = restored or [problem.initial for problem in problems]
        keepers = [[watcher] for watcher in run.callbacks(len(problems), restored)] if run else [[]] * len(problems)
        self.resumed_at = max(snapshot.step for snapshot in restored) if restored else 0
        self.problems = [
            replace(problem, initial=start, callbacks=(*keeper, *problem.callbacks, *more))
            for problem, start, keeper in zip(problems, starts, keepers, strict=True)
        ]

    def ended(self, solutions: Sequence[Solution]) -> None:
        """Delete the checkpoints, unless a callback ended the run early: the same call then resumes.

        A stage leaves them to the run that it is a part of.
        """
        if (
            self._run
            and self._run.stage.before is None
            and all(solution.reason != "callback" for solution in solutions)
        ):
            self._run.remove()

    def diverged(self) -> None:
        """Delete the checkpoints: the same call would diverge again."""
        if self._run:
            self._run.remove()


@contextmanager
def attempt(problems: Sequence[Problem], run: CheckpointRun | None, more: Sequence[Callback]) -> Iterator[Attempt]:
    """Yield an attempt; close all callbacks whatever happens.

    Parameters
    ----------
    problems : sequence of Problem
        One for each model.
    run : CheckpointRun or None
        Keeps the checkpoints, those of an earlier attempt included.
    more : sequence of Callback
        Called for every model, after its own callbacks.
    """
    try:
        begun = Attempt(problems, run, more)
        try:
            yield begun
        except DivergedError:
            begun.diverged()
            raise
    finally:
        known = {id(callback): callback for problem in problems for callback in (*problem.callbacks, *more)}
        close(list(known.values()))
