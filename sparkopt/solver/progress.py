"""A run between two steps: its records, its state as data, what callbacks see, and when it stops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import field
from typing import Protocol

import numpy as np

from sparkopt.optim.base import Point
from sparkopt.typing import Floats, State
from sparkopt.validation import Interval, check
from sparkopt.values import dataclass

WORST_OF = 10
"""Steps whose worst objective is compared with the last one: a small step alone is no sign of the optimum."""
CAUTION = 0.1
"""Share of the square of the tolerance that an estimated gap may be: the gap itself may be a few times as large."""
SLOW_SHARE = 1e-4
"""Share of the tolerance that it may be where steps converge linearly, and each further digit takes many."""
LEAST_GAP = 1e-15
"""Relative gap that rounding allows to be estimated."""
ROUNDED = 1e-7
"""Relative gap from which a gap that no longer falls is that of rounding: float32 rows are no more exact."""
LEAST_SHARE = 1e-3
"""Share of the first objective that counts for the scale of the last one, which may fall towards zero."""

__all__ = ["Callback", "Progress", "Record", "Snapshot", "Stop", "runs_in_loop_process"]


@dataclass(frozen=True)
class Record:
    """One step in the history.

    Attributes
    ----------
    step : int
        Number of the step; 0 is the start.
    objective : float
        Objective at the coefficients after the step, penalty included. Where steps see a part of the rows, it is an
        estimate on those; that of the final model is over all rows.
    gradient_norm : float
        Norm of the gradient there, on the rows that the step saw (nonsmooth: of the proximal gradient step of
        length 1).
    evaluations : int
        Passes over the step's rows.
    rows : int
        Rows touched in these passes.
    seconds : float
        Since the start of the loop; a resumed run adds to those of its snapshot.
    validation : float or None, default None
        Mean loss of the validation rows there, without penalty; None where there are none, or the step
        did not evaluate them.
    gap : float or None, default None
        Estimate of how far the objective is above the optimum; None where the optimiser has none.
    """

    step: int
    objective: float
    gradient_norm: float
    evaluations: int
    rows: int
    seconds: float
    validation: float | None = None
    gap: float | None = None


@dataclass(frozen=True)
class Snapshot:
    """Everything that is needed to continue after a step, as data.

    Attributes
    ----------
    at : Point
        The coefficients and what is known of the objective there.
    transform, search : nested tuples, lists and dicts of arrays, numbers, strings and None
        The optimiser's state.
    fresh : bool
        Whether that state is the initial one, so that a failed search ends the run.
    history : tuple of Record
        All steps so far, the start included.
    best : pair of int and ndarray, or None
        Step and coefficients of the lowest validation loss; None without validation rows.
    """

    at: Point
    transform: State
    search: State
    fresh: bool
    history: tuple[Record, ...] = field(repr=False)
    best: tuple[int, Floats] | None = None

    @property
    def step(self) -> int:
        """Number of the step it was taken after."""
        return self.history[-1].step


@dataclass(frozen=True)
class Progress:
    """What a callback receives after each step.

    Attributes
    ----------
    record : Record
        The step.
    coef : ndarray of shape (size,)
        The coefficients, in the solver's coordinates.
    max_iter : int
        How many steps it may take.
    model : int, default 0
        Which model, where several are trained together.
    elapsed : float, default 0
        Seconds since this run of the loop began; a resumed run counts from zero.
    """

    record: Record
    coef: Floats
    max_iter: int
    model: int = 0
    elapsed: float = 0.0
    take: Callable[[], Snapshot] | None = field(default=None, repr=False, compare=False)

    def snapshot(self) -> Snapshot:
        """Return the state after this step, now or later; it shares its arrays with the loop.

        Raises
        ------
        RuntimeError
            In another process than the loop: only a callback with ``in_loop_process = True`` may call it.
        """
        if self.take is None:
            raise RuntimeError("the loop runs in another process: set in_loop_process = True on the callback.")
        return self.take()


class Callback(Protocol):
    """Called after each step; a true result stops the loop.

    Any function will do. An object may have two more attributes:

    - ``in_loop_process``: True for one that takes snapshots, and so runs in the loop's own process wherever that is.
      It must then be picklable. Without it, it runs on the driver;
    - ``close()``: called once the fit has ended, however it ended.
    """

    def __call__(self, progress: Progress, /) -> bool | None:
        """Handle a step; return True to stop."""
        ...


def runs_in_loop_process(callback: Callback) -> bool:
    """Whether the callback runs in the loop's own process, wherever that is, and not on the driver."""
    return bool(getattr(callback, "in_loop_process", False))


@dataclass(frozen=True)
class Stop:
    """When to stop.

    Parameters
    ----------
    max_iter : int, default 100
        Most steps, ≥ 0.
    tol : float, default 1e-6
        How near the optimum must be. Where the optimiser estimates the gap of the objective: stop when that is at
        most a tenth of tol² of the objective. The gap falls with the square of the distance, so coefficients are then
        within about tol of the optimum, relatively, in the Hessian's metric. Where the optimiser converges linearly,
        so that this would take many more steps: at most tol / 10,000 of it. Without an estimate, as pyspark.ml: stop
        when the norm of the (proximal) gradient is at most tol of the objective, or when the objective changed by at
        most tol, relatively, over the last ten steps. Where steps see a part of the rows: when it changed by so
        little from one window to the next. 0 never stops so.
    gradient_tol : float, default 0
        Stop when the norm of the (proximal) gradient is at most this, in each of the last ``window`` steps.
    window : int, default 1
        Steps whose objectives are averaged before they are compared; for mini-batches, about one epoch.
    patience : int, default 10
        Stop when the validation loss has not fallen in so many evaluations (Prechelt, 1998, *Early stopping – but
        when?*, §2.2, criterion UP). No effect without validation rows.
    min_delta : float, default 0
        How far it must have fallen to count, in the loss's own unit.
    unit : float, default 1
        How large coefficients may be: a gradient times this is what is compared with ``tol`` times the objective.
    """

    max_iter: int = 100
    tol: float = 1e-6
    gradient_tol: float = 0.0
    window: int = 1
    patience: int = 10
    min_delta: float = 0.0
    unit: float = 1.0

    def __post_init__(self) -> None:
        check("maxIter", self.max_iter, Interval(0, None, whole=True))
        check("tol", self.tol, Interval(0, None))
        check("gradient_tol", self.gradient_tol, Interval(0, None))
        check("window", self.window, Interval(1, None, whole=True))
        check("patience", self.patience, Interval(1, None, whole=True))
        check("minDelta", self.min_delta, Interval(0, None))

    def reason(
        self, history: Sequence[Record], linear: bool = False, halving: int = WORST_OF, learns: bool = False
    ) -> str | None:
        """Return why to stop now, or None to continue.

        ``linear`` and ``halving`` are those of the ``Search``, ``learns`` is ``learns_length`` of the transformation.
        """
        recent = history[-self.window :]  # one mini-batch without a gradient may be an exception
        if len(recent) == self.window and all(record.gradient_norm <= self.gradient_tol for record in recent):
            return "gradient"
        if self.tol > 0 and self._is_near(history, linear, learns):
            return "tolerance"
        if self.tol > 0 and self._is_rounding(history, halving):
            return "precision"
        if history[-1].validation is not None and self._stalls(history):
            return "validation"
        return "maxIter" if history[-1].step >= self.max_iter else None

    def _is_near(self, history: Sequence[Record], linear: bool, learns: bool) -> bool:
        """Whether the optimum is within the tolerance, as far as the history shows."""
        if self.window > 1:
            return len(history) > 2 * self.window - 1 and self._change(history) <= self.tol
        recent = [record.objective for record in history[-1 - WORST_OF :]]
        scale = max(abs(recent[-1]), LEAST_SHARE * abs(history[0].objective), float(np.finfo(float).tiny))
        gap = history[-1].gap
        if gap is not None:
            enough = max(CAUTION * self.tol * self.tol, SLOW_SHARE * self.tol if linear else LEAST_GAP, LEAST_GAP)
            return gap <= enough * scale
        if recent[-1] <= history[0].objective and self.unit * history[-1].gradient_norm <= self.tol * scale:
            return True  # where steps diverge, the objective outgrows the gradient
        if len(recent) < 2 or max(recent) - min(recent) > self.tol * scale:
            return False
        return not learns or self._has_moved(history, scale)  # first steps that are tiny, or none, are no sign

    def _has_moved(self, history: Sequence[Record], scale: float) -> bool:
        """Whether the objective has ever changed by more than the tolerance."""
        values = [record.objective for record in history]
        return max(values) - min(values) > self.tol * scale

    def _is_rounding(self, history: Sequence[Record], steps: int) -> bool:
        """Whether the estimated gap is small, and no longer falls: gradients over float32 rows are no more exact."""
        if self.window > 1 or len(history) <= steps:
            return False
        most = ROUNDED * abs(history[-1].objective)
        recent = [record.gap for record in history[-steps:] if record.gap is not None and record.gap <= most]
        if len(recent) < steps:
            return False
        before = [record.gap for record in history[:-steps] if record.gap is not None]
        return bool(before) and min(recent) > 0.5 * min(before)

    def _change(self, history: Sequence[Record]) -> float:
        values = [record.objective for record in history[-2 * self.window :]]
        before, now = np.mean(values[: self.window]), np.mean(values[self.window :])
        return float(abs(before - now) / max(abs(before), abs(now), np.finfo(float).tiny))

    def _stalls(self, history: Sequence[Record]) -> bool:
        """Whether the last validation evaluations are no better than the best one before them."""
        losses = [record.validation for record in history if record.validation is not None]
        if len(losses) <= self.patience:
            return False
        return min(losses[-self.patience :]) >= min(losses[: -self.patience]) - self.min_delta
