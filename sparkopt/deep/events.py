"""What happens during training: one frozen dataclass for each kind of event.

The loop makes events and does not know who listens. On each rank, listeners save checkpoints and measure time; rank 0
also logs, and sends the driver most events as plain data. On the driver, listeners call the callbacks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Any, TypeAlias

from sparkopt.values import dataclass

__all__ = [
    "EpochEnded",
    "Event",
    "GroupChanged",
    "Listener",
    "Noted",
    "Resumed",
    "StateReady",
    "StepsDone",
    "from_report",
    "to_report",
]


@dataclass(frozen=True)
class StepsDone:
    """Some steps of an epoch, and their losses.

    Attributes
    ----------
    epoch, step : int
        The epoch, and how many of its steps are done now.
    steps : int
        Steps of an epoch.
    losses : tuple of float
        Mean loss of each step's rows, on all ranks.
    rows : tuple of int
        Rows of each step, on all ranks.
    """

    epoch: int
    step: int
    steps: int
    losses: tuple[float, ...]
    rows: tuple[int, ...]

    @property
    def total(self) -> int:
        """Steps done since the start of training."""
        return self.epoch * self.steps + self.step


@dataclass(frozen=True)
class EpochEnded:
    """An epoch, and its evaluation.

    Attributes
    ----------
    epoch, steps : int
        The epoch, and how many steps it had.
    loss : float
        Mean loss of its steps, weighted by their rows.
    metrics : dict
        Over the rows held out: ``validation``, the mean loss, and the metrics by name; empty where there are none.
    rate : float
        Learning rate of the last step.
    seconds, waited : float
        How long its steps took, and how much of that was waiting for batches.
    rows : int
        Its rows.
    validation_seconds : float
        How long the evaluation took, apart from waiting for batches.
    """

    epoch: int
    steps: int
    loss: float
    metrics: Mapping[str, Any]
    rate: float
    seconds: float
    waited: float
    rows: int
    validation_seconds: float

    @property
    def total(self) -> int:
        """Steps done since the start of training."""
        return (self.epoch + 1) * self.steps

    @property
    def validation(self) -> float | None:
        """Mean loss of the rows held out, or None where there are none."""
        return self.metrics.get("validation")

    def record(self) -> dict[str, Any]:
        """Return the epoch as the history of a training has it."""
        result = {"epoch": self.epoch, "loss": self.loss, **self.metrics, "rate": self.rate}
        return {**result, "seconds": self.seconds, "waited": self.waited, "rows": self.rows}


@dataclass(frozen=True)
class StateReady:
    """All ranks have done the same steps and reported them: training can continue from here later.

    Attributes
    ----------
    lasting : bool
        Whether the state should outlive these processes. Otherwise it is only of use to ranks that stay in memory.
    """

    lasting: bool


@dataclass(frozen=True)
class Resumed:
    """Training continues from a checkpoint.

    Attributes
    ----------
    checkpoint : str
        Its name.
    epoch, step : int
        Where it continues.
    repeated : int
        Steps that were done before, and are done again.
    """

    checkpoint: str
    epoch: int
    step: int
    repeated: int


@dataclass(frozen=True)
class Noted:
    """What the user should know: before the first step, or of a checkpoint that could not be written.

    Attributes
    ----------
    text : str
        A sentence.
    """

    text: str


@dataclass(frozen=True)
class GroupChanged:
    """Ranks were lost, or joined; the launcher of elastic ranks reports it.

    Attributes
    ----------
    size, before : int
        Number of ranks now, and before.
    lost : tuple of int
        Ranks of the group before that are gone.
    """

    size: int
    before: int
    lost: tuple[int, ...]


Event: TypeAlias = StepsDone | EpochEnded | StateReady | Resumed | Noted | GroupChanged

Listener: TypeAlias = Callable[[Event], "bool | None"]
"""Called with each event, and ignores those of other kinds; on the driver, a true result asks the ranks to stop."""

_REPORTED: Mapping[str, type[StepsDone | EpochEnded | Resumed | Noted | GroupChanged]] = MappingProxyType(
    {"steps": StepsDone, "epoch": EpochEnded, "resumed": Resumed, "noted": Noted, "group": GroupChanged}
)
"""Events that the driver receives, by their name there."""


def to_report(event: Event) -> dict[str, Any] | None:
    """Return an event as plain data that JSON holds, or None for one that stays on its rank."""
    for name, kind in _REPORTED.items():
        if isinstance(event, kind):
            return {"event": name, **asdict(event)}
    return None


def from_report(report: Mapping[str, Any]) -> Event:
    """Return the event of a report; lists, which JSON has instead of tuples, become tuples.

    Examples
    --------
    >>> from_report({"event": "group", "size": 1, "before": 2, "lost": [1]})
    GroupChanged(size=1, before=2, lost=(1,))
    """
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in report.items()}
    return _REPORTED[values.pop("event")](**values)
