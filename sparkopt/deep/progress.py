"""What the driver makes of the ranks' reports: the progress that callbacks know, step by step."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from sparkopt.solver.progress import Callback, Progress, Record

__all__ = ["Watch"]

logger = logging.getLogger(__name__)


class Watch:
    """Turns reports into calls of callbacks.

    A report has many steps. The last step of an epoch is told once its loss on the rows held out is known.

    Parameters
    ----------
    callbacks : sequence of Callback
        Called for each step: ``record.objective`` is the mean loss of its rows, ``record.validation`` the loss of the
        rows held out, at the last step of an epoch; there is no gradient norm (NaN), and no ``coef``.
    epochs : int
        Passes that training may take.

    Attributes
    ----------
    losses : int
        How often ranks were lost and the others went on.
    """

    def __init__(self, callbacks: Sequence[Callback], epochs: int) -> None:
        self._callbacks, self._epochs = callbacks, epochs
        self._begin = time.perf_counter()
        self._steps = 0
        self.losses = 0
        self._held: tuple[int, float, int] | None = None

    def __call__(self, report: dict[str, Any]) -> bool:
        """Tell the callbacks; return whether one of them wants to stop."""
        if report["event"] in ("group", "resumed"):
            self._note(report)
            return False
        if report["event"] == "epoch":
            if self._held is None:
                return False
            step, loss, rows = self._held
            self._held = None
            return self._tell(step, loss, rows, report.get("validation"))
        self._steps = report["steps"]
        first = report["epoch"] * self._steps + report["step"] - len(report["losses"]) + 1
        stop = False
        for number, (loss, rows) in enumerate(zip(report["losses"], report["rows"], strict=True)):
            if report["step"] == self._steps and number == len(report["losses"]) - 1:
                self._held = (first + number, loss, rows)
            else:
                stop = self._tell(first + number, loss, rows, None) or stop
        return stop

    def _note(self, report: dict[str, Any]) -> None:
        """Log who was lost or has joined, and where training goes on."""
        if report["event"] == "resumed":
            told = f", which repeats {report['again']} steps" if report["again"] else ""
            logger.info("Training goes on from step %d of epoch %d%s.", report["step"], report["epoch"], told)
        elif report["lost"]:
            self.losses += 1
            lost, before, size = ", ".join(map(str, report["lost"])), report["before"], report["size"]
            logger.warning("Rank %s of %d ended without a word; training goes on with %d.", lost, before, size)
        else:
            logger.info("Training goes on with %d processes instead of %d.", report["size"], report["before"])

    def _tell(self, step: int, loss: float, rows: int, validation: float | None) -> bool:
        elapsed = time.perf_counter() - self._begin
        record = Record(step, loss, math.nan, 1, rows, elapsed, validation)
        progress = Progress(record, np.empty(0), self._epochs * self._steps, elapsed=elapsed)
        answers = [bool(callback(progress)) for callback in self._callbacks]
        return any(answers)
