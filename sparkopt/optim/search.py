"""Searches along a direction: a fixed step, backtracking, or strong Wolfe."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sparkopt.optim.base import Evaluate, Point, Search
from sparkopt.optim.request import Gradients
from sparkopt.optim.schedules import as_schedule
from sparkopt.typing import Floats, Schedule, State
from sparkopt.validation import Interval, check
from sparkopt.values import dataclass

if TYPE_CHECKING:
    from sparkopt.penalties import Penalty

__all__ = ["Backtracking", "Fixed", "StrongWolfe"]

UNIT = Interval(0, 1, closed="neither")
POSITIVE = Interval(0, None, closed="neither")
COUNT = Interval(1, None, whole=True)
EPSILON = float(np.finfo(float).eps)
ROUNDING = 1e-9
"""Rounding of a mean loss over float32 rows, over the loss: values that differ by less do not tell which is lower."""


@dataclass(frozen=True)
class Fixed(Search):
    """Add the direction as it is: one evaluation a step, on whatever rows the step sees.

    Bounds on coefficients are kept by projection, which is right for every direction that scales each coordinate of
    the gradient by a positive number: its fixed points solve the bounded problem (Bertsekas, 1976, *On the
    Goldstein-Levitin-Polyak gradient projection method*, prop. 1).

    Parameters
    ----------
    prox_rate : float, Schedule or None, default None
        The step size inside the direction, where the direction is −rate · gradient: the proximal step of a nonsmooth
        penalty then has the same length (proximal gradient descent; Parikh & Boyd, 2014, §4.2). None where the
        direction is anything else, so that no such step would lead to the optimum.
    """

    prox_rate: float | Schedule | None = None

    needs_exact = False
    needs_gradient = False

    def serves(self, penalty: Penalty) -> bool:
        """Whether a proximal step can be taken, or needs no length."""
        return penalty.smooth or penalty.is_bounds or self.prox_rate is not None

    def init(self, coef: Floats) -> State:
        """Return step number 0."""
        return 0

    def run(self, at: Point, direction: Floats, penalty: Penalty, state: State) -> Evaluate:
        """Take the whole step."""
        length = 0.0 if self.prox_rate is None else as_schedule(self.prox_rate)(state)
        (point,) = yield Gradients(penalty.prox(at.coef + direction, length)[None])
        return point, state + 1


@dataclass(frozen=True)
class Backtracking(Search):
    """Shorten the step until the objective decreases enough (Armijo, 1966; Nocedal & Wright, 2006, algorithm 3.1).

    With a nonsmooth penalty, each trial ends with a proximal step of its own length and must decrease the
    objective by decrease/length · ‖step‖² (Beck & Teboulle, 2009, §3). The first trial of a step is the last accepted
    length, or ``growth`` times that where the step before accepted its first trial.

    Parameters
    ----------
    initial : float, default 1
        First trial length.
    shrink, growth : float, default 0.5, 2
        Factors between trials and between steps.
    decrease : float, default 1e-4
        Share of the decrease predicted by the slope that a step must reach.
    max_trials : int, default 50
        Trials before the search gives up.
    """

    initial: float = 1.0
    shrink: float = 0.5
    growth: float = 2.0
    decrease: float = 1e-4
    max_trials: int = 50

    def __post_init__(self) -> None:
        check("initial", self.initial, POSITIVE)
        check("shrink", self.shrink, UNIT)
        check("growth", self.growth, Interval(1, None))
        check("decrease", self.decrease, UNIT)
        check("max_trials", self.max_trials, COUNT)

    def serves(self, penalty: Penalty) -> bool:
        """Return True: a proximal step is taken for the nonsmooth part."""
        return True

    def init(self, coef: Floats) -> State:
        """Return the first trial length."""
        return self.initial

    def run(self, at: Point, direction: Floats, penalty: Penalty, state: State) -> Evaluate:
        """Shorten the step until the objective decreases enough."""
        length = state
        for trial in range(self.max_trials):
            coef = penalty.prox(at.coef + length * direction, length)
            predicted = self._predicted(at, coef, direction, penalty, length)
            if predicted <= EPSILON * abs(at.value):
                break  # what is left to gain is less than the objective's rounding
            (point,) = yield Gradients(coef[None])
            if point.is_finite and point.value < at.value and point.value <= at.value - self.decrease * predicted:
                return point, length * (self.growth if trial == 0 else 1.0)
            length *= self.shrink
        return at, self.initial

    def _predicted(self, at: Point, coef: Floats, direction: Floats, penalty: Penalty, length: float) -> float:
        if penalty.smooth:
            return -length * float(at.gradient @ direction)
        step = coef - at.coef
        return float(step @ step) / length


@dataclass(frozen=True)
class StrongWolfe(Search):
    """A step with enough decrease and little slope left (Nocedal & Wright, 2006, algorithms 3.5 and 3.6).

    Trials are placed by cubic interpolation (eq. 3.59). Where the objective changes by less than its own rounding, as
    that of float32 rows does near the optimum, the slope alone decides (the approximate Wolfe conditions of Hager &
    Zhang, 2005, eq. 4.1).

    Parameters
    ----------
    decrease, slope : float, default 1e-4, 0.9
        c₁ and c₂ of the strong Wolfe conditions, 0 < decrease < slope < 1.
    max_trials : int, default 30
        Trials before the search returns the best one.
    """

    decrease: float = 1e-4
    slope: float = 0.9
    max_trials: int = 30

    def __post_init__(self) -> None:
        check("slope", self.slope, UNIT)
        check("decrease", self.decrease, Interval(0, self.slope, closed="neither"))
        check("max_trials", self.max_trials, COUNT)

    def run(self, at: Point, direction: Floats, penalty: Penalty, state: State) -> Evaluate:
        """Bracket a step, then narrow the bracket."""
        start = _LinePoint(0.0, at, float(at.gradient @ direction))
        if not start.slope < 0:  # no descent direction, or the gradient is zero
            return at, state
        low, high, length = start, None, 1.0
        for _ in range(self.max_trials):
            (point,) = yield Gradients((at.coef + length * direction)[None])
            trial = _LinePoint(length, point, float(point.gradient @ direction))
            if self._accepts(start, trial):
                return point, state
            if self._too_high(start, low, trial):
                high = trial
            else:
                if trial.slope * ((high.length if high else np.inf) - low.length) >= 0:
                    high = low
                low = trial
            if high and abs(low.slope * (high.length - low.length)) <= EPSILON * abs(start.value):
                break  # what is left to gain is less than the objective's rounding
            length = _between(low, high) if high else 4.0 * low.length
        return low.point, state  # ``at`` itself where nothing was lower

    def _accepts(self, start: _LinePoint, trial: _LinePoint) -> bool:
        if not trial.point.is_finite:
            return False
        flat = abs(trial.slope) <= -self.slope * start.slope
        if flat and trial.value <= start.value + self.decrease * trial.length * start.slope:
            return True
        rounding = ROUNDING * abs(start.value)
        nearly_flat = self.slope * start.slope <= trial.slope <= (2 * self.decrease - 1) * start.slope
        return nearly_flat and trial.value <= start.value + rounding

    def _too_high(self, start: _LinePoint, low: _LinePoint, trial: _LinePoint) -> bool:
        allowed = start.value + self.decrease * trial.length * start.slope
        return not trial.point.is_finite or trial.value > allowed or trial.value >= low.value


@dataclass(frozen=True)
class _LinePoint:
    """A point on the line, with the objective's slope there."""

    length: float
    point: Point
    slope: float

    @property
    def value(self) -> float:
        return self.point.value


def _between(low: _LinePoint, high: _LinePoint) -> float:
    """Return the minimum of the cubic through both ends, kept off the ends by a tenth; the middle where none is."""
    width = high.length - low.length
    middle = low.length + 0.5 * width
    if not high.point.is_finite:
        return low.length + 0.1 * width
    d1 = low.slope + high.slope - 3 * (low.value - high.value) / (low.length - high.length)
    square = d1 * d1 - low.slope * high.slope
    if not square >= 0:
        return middle
    d2 = np.sign(width) * np.sqrt(square)
    denominator = high.slope - low.slope + 2 * d2
    if denominator == 0:
        return middle
    share = 1.0 - (high.slope + d2 - d1) / denominator
    return float(low.length + np.clip(share, 0.1, 0.9) * width) if np.isfinite(share) else middle
