"""Listeners of a rank: time for the receipt, loggers, and reports to the driver."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sparkopt.deep.events import EpochEnded, Event, Listener, StepsDone, to_report
from sparkopt.deep.loggers import Logger
from sparkopt.launch import Communicator

__all__ = ["TimeSpent", "logging_to", "reporting_to"]


class TimeSpent:
    """Sums up where the time of the epochs went.

    Attributes
    ----------
    train, validate : float
        Seconds of steps and of evaluations, apart from waiting for batches.
    """

    def __init__(self) -> None:
        self.train = self.validate = 0.0

    def __call__(self, event: Event) -> None:
        """Add up an epoch."""
        if isinstance(event, EpochEnded):
            self.train += event.seconds - event.waited
            self.validate += event.validation_seconds


@contextmanager
def logging_to(loggers: Sequence[Logger]) -> Iterator[Listener]:
    """Open loggers; give a listener that logs losses, rate and metrics to them."""
    opened: list[tuple[Logger, Any]] = [(logger, logger.open()) for logger in loggers]

    def log(event: Event) -> None:
        if isinstance(event, StepsDone):
            values = {"step_loss": event.losses[-1]}
        elif isinstance(event, EpochEnded):
            values = {"loss": event.loss, **event.metrics, "rate": event.rate}
        else:
            return
        numbers = {name: value for name, value in values.items() if isinstance(value, (int, float))}
        for logger, target in opened:
            logger.log(target, numbers, event.total)

    try:
        yield log
    finally:
        for logger, target in opened:
            logger.close(target)


def reporting_to(communicator: Communicator) -> Listener:
    """Return a listener that sends the driver its events."""

    def report(event: Event) -> None:
        content = to_report(event)
        if content is not None:
            communicator.report(content)

    return report
