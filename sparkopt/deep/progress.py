"""How the driver reacts to the ranks' reports: it calls callbacks step by step, and logs changes of the group."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sparkopt.deep.events import EpochEnded, Event, GroupChanged, Listener, Noted, Resumed, StepsDone, from_report
from sparkopt.launch.launching import Losses
from sparkopt.solver.progress import Callback, Progress, Record
from sparkopt.values import dataclass

__all__ = ["CallbackListener", "GroupLog", "ReportReceiver"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReportReceiver:
    """What a launcher calls with each report: it passes the event to the listeners.

    Parameters
    ----------
    listeners : sequence of Listener
        Called in this order.
    """

    listeners: Sequence[Listener]

    def __call__(self, report: Mapping[str, Any]) -> bool:
        """Return whether a listener asks the ranks to stop."""
        event = from_report(report)
        answers = [bool(listener(event)) for listener in self.listeners]
        return any(answers)


class CallbackListener:
    """Calls callbacks once for each step.

    An event has many steps. The last step of an epoch waits until its loss on the rows held out is known.

    Parameters
    ----------
    callbacks : sequence of Callback
        Called for each step: ``record.objective`` is the mean loss of its rows, ``record.validation`` the loss of the
        rows held out, at the last step of an epoch; there is no gradient norm (NaN), and no ``coef``.
    epochs : int
        Most epochs of the training.
    """

    def __init__(self, callbacks: Sequence[Callback], epochs: int) -> None:
        self._callbacks, self._epochs = callbacks, epochs
        self._begin = time.perf_counter()
        self._last: tuple[int, float, int] | None = None
        self._error: Exception | None = None

    def raise_error(self) -> None:
        """Raise what a callback raised: it ended the training, and whichever process runs it."""
        if self._error is not None:
            raise self._error

    def __call__(self, event: Event) -> bool:
        """Call the callbacks; return whether one of them asks to stop, or has failed."""
        if self._error is not None:
            return True
        if not self._callbacks:
            return False
        try:
            return self._react(event)
        except Exception as error:  # noqa: BLE001  # raised again once the ranks have ended
            self._error = error
            return True

    def _react(self, event: Event) -> bool:
        if isinstance(event, EpochEnded) and self._last is not None:
            last, self._last = self._last, None
            return self._call(*last, event.validation, event.steps)
        if not isinstance(event, StepsDone):
            return False
        first = event.total - len(event.losses) + 1
        done = list(zip(range(first, event.total + 1), event.losses, event.rows, strict=True))
        if event.step == event.steps:
            self._last = done.pop()
        answers = [self._call(*step, None, event.steps) for step in done]
        return any(answers)

    def _call(self, step: int, loss: float, rows: int, validation: float | None, steps: int) -> bool:
        elapsed = time.perf_counter() - self._begin
        record = Record(step, loss, math.nan, 1, rows, elapsed, validation)
        progress = Progress(record, np.empty(0), self._epochs * steps, elapsed=elapsed)
        answers = [bool(callback(progress)) for callback in self._callbacks]
        return any(answers)


class GroupLog:
    """Logs which ranks were lost or have joined, and where training continues.

    Parameters
    ----------
    losses : Losses
        Where it is counted how often ranks were lost and the others continued.
    """

    def __init__(self, losses: Losses) -> None:
        self._losses = losses

    def __call__(self, event: Event) -> None:
        """Log a change."""
        if isinstance(event, Noted):
            logger.warning("%s", event.text)
        elif isinstance(event, Resumed):
            repeated = f", which repeats {event.repeated} steps" if event.repeated else ""
            logger.info("Training continues from step %d of epoch %d%s.", event.step, event.epoch, repeated)
        elif isinstance(event, GroupChanged) and event.lost:
            self._losses.survived += 1
            lost = ", ".join(map(str, event.lost))
            logger.warning(
                "Rank %s of %d ended unexpectedly; training continues with %d.", lost, event.before, event.size
            )
        elif isinstance(event, GroupChanged):
            logger.info("Training continues with %d processes instead of %d.", event.size, event.before)
