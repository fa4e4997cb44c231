"""How far to go along a direction: a fixed step, backtracking, strong Wolfe, or FISTA's accelerated proximal step."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sparkopt.optim.base import Ask, Evaluate, Point, Search
from sparkopt.optim.schedules import as_schedule
from sparkopt.typing import Floats, Schedule, State
from sparkopt.validation import Interval, check

if TYPE_CHECKING:
    from sparkopt.penalties import Penalty

__all__ = ["AcceleratedProximal", "Backtracking", "Fixed", "StrongWolfe"]

UNIT = Interval(0, 1, closed="neither")
POSITIVE = Interval(0, None, closed="neither")
COUNT = Interval(1, None, whole=True)
EPSILON = float(np.finfo(float).eps)


@dataclass(frozen=True)
class Fixed(Search):
    """Add the direction as it is: one evaluation a step, on whatever rows the step sees.

    Parameters
    ----------
    prox_rate : float, Schedule or None, default None
        The step size inside the direction, where the direction is −rate · gradient: the proximal step of a penalty
        with kinks then has the same length (proximal gradient descent; Parikh & Boyd, 2014, §4.2). None where the
        direction is anything else, so that no such step would lead to the optimum.
    """

    prox_rate: float | Schedule | None = None

    needs_exact = False

    @property
    def has_prox(self) -> bool:  # type: ignore[override]  # derived here, stored elsewhere
        """Whether the length of a proximal step is known."""
        return self.prox_rate is not None

    def init(self, coef: Floats) -> State:
        """Return step number 0."""
        return 0

    def run(self, at: Point, direction: Floats, penalty: Penalty, state: State) -> Evaluate:
        """Go the whole way."""
        coef = at.coef + direction
        if self.prox_rate is not None:
            coef = penalty.prox(coef, as_schedule(self.prox_rate)(state))
        (point,) = yield Ask([coef])
        return point, state + 1


@dataclass(frozen=True)
class Backtracking(Search):
    """Shorten the step until the objective decreases enough (Armijo, 1966; Nocedal & Wright, 2006, algorithm 3.1).

    With a penalty that has kinks, each trial ends with a proximal step of its own length and must decrease the
    objective by decrease/length · ‖move‖² (Beck & Teboulle, 2009, §3). The first trial of a step is ``growth`` times
    the last accepted length.

    Parameters
    ----------
    initial : float, default 1
        First trial length.
    shrink, growth : float, default 0.5, 2
        Factors between trials and between steps.
    decrease : float, default 1e-4
        Share of the decrease promised by the slope that a step must reach.
    max_trials : int, default 50
        Trials before the search gives up.
    """

    initial: float = 1.0
    shrink: float = 0.5
    growth: float = 2.0
    decrease: float = 1e-4
    max_trials: int = 50

    has_prox = True

    def __post_init__(self) -> None:
        check("initial", self.initial, POSITIVE)
        check("shrink", self.shrink, UNIT)
        check("growth", self.growth, Interval(1, None))
        check("decrease", self.decrease, UNIT)
        check("max_trials", self.max_trials, COUNT)

    def init(self, coef: Floats) -> State:
        """Return the first trial length."""
        return self.initial

    def run(self, at: Point, direction: Floats, penalty: Penalty, state: State) -> Evaluate:
        """Halve until it decreases."""
        length = state
        for _ in range(self.max_trials):
            coef = penalty.prox(at.coef + length * direction, length)
            (point,) = yield Ask([coef])
            if point.is_finite and self._decreases(at, point, direction, penalty, length):
                return point, length * self.growth
            length *= self.shrink
        return at, self.initial

    def _decreases(self, at: Point, to: Point, direction: Floats, penalty: Penalty, length: float) -> bool:
        if penalty.smooth:
            promised = -length * float(at.gradient @ direction)
        else:
            move = to.coef - at.coef
            promised = float(move @ move) / length
        return to.value < at.value and to.value <= at.value - self.decrease * promised


@dataclass(frozen=True)
class StrongWolfe(Search):
    """A step with enough decrease and little slope left (Nocedal & Wright, 2006, algorithms 3.5 and 3.6).

    Trials are placed by cubic interpolation (eq. 3.59). Where the objective changes by less than its own rounding,
    the slope alone decides (the approximate Wolfe conditions of Hager & Zhang, 2005, eq. 4.1).

    Parameters
    ----------
    decrease, slope : float, default 1e-4, 0.9
        c₁ and c₂ of the strong Wolfe conditions, 0 < decrease < slope < 1.
    max_trials : int, default 30
        Trials before the search settles for the best one.
    """

    decrease: float = 1e-4
    slope: float = 0.9
    max_trials: int = 30

    def __post_init__(self) -> None:
        check("slope", self.slope, UNIT)
        check("decrease", self.decrease, Interval(0, self.slope, closed="neither"))
        check("max_trials", self.max_trials, COUNT)

    def run(self, at: Point, direction: Floats, penalty: Penalty, state: State) -> Evaluate:
        """Bracket a step, then close in on it."""
        start = _Trial(0.0, at, float(at.gradient @ direction))
        if not start.slope < 0:  # not downhill: the direction is worthless, or the gradient is zero
            return at, state
        low, high, length = start, None, 1.0
        for _ in range(self.max_trials):
            (point,) = yield Ask([at.coef + length * direction])
            trial = _Trial(length, point, float(point.gradient @ direction))
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

    def _accepts(self, start: _Trial, trial: _Trial) -> bool:
        if not trial.point.is_finite:
            return False
        flat = abs(trial.slope) <= -self.slope * start.slope
        if flat and trial.value <= start.value + self.decrease * trial.length * start.slope:
            return True
        rounding = 1e-12 * abs(start.value)
        nearly_flat = self.slope * start.slope <= trial.slope <= (2 * self.decrease - 1) * start.slope
        return nearly_flat and trial.value <= start.value + rounding

    def _too_high(self, start: _Trial, low: _Trial, trial: _Trial) -> bool:
        allowed = start.value + self.decrease * trial.length * start.slope
        return not trial.point.is_finite or trial.value > allowed or trial.value >= low.value


@dataclass(frozen=True)
class _Trial:
    """A point on the line, with the objective's slope there."""

    length: float
    point: Point
    slope: float

    @property
    def value(self) -> float:
        return self.point.value


def _between(low: _Trial, high: _Trial) -> float:
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


@dataclass(frozen=True)
class AcceleratedProximal(Search):
    """FISTA with backtracking (Beck & Teboulle, 2009, §4) and adaptive restart (O'Donoghue & Candès, 2015, eq. 13).

    Each step needs the objective at the new coefficients and the gradient at the extrapolated ones: both are asked
    for together, so a step costs one pass over the data. It ignores the direction: FISTA's gradients are taken
    elsewhere than at its coefficients.

    Parameters
    ----------
    initial : float, default 1
        First trial length; the inverse of the gradient's Lipschitz constant is best.
    shrink, growth : float, default 0.5, 1.1
        Factors between trials and between steps.
    max_trials : int, default 60
        Trials before the search gives up.
    """

    initial: float = 1.0
    shrink: float = 0.5
    growth: float = 1.1
    max_trials: int = 60

    has_prox = True

    def __post_init__(self) -> None:
        check("initial", self.initial, POSITIVE)
        check("shrink", self.shrink, UNIT)
        check("growth", self.growth, Interval(1, None))
        check("max_trials", self.max_trials, COUNT)

    def init(self, coef: Floats) -> State:
        """Return no extrapolation yet."""
        return {"ahead": None, "t": 1.0, "length": self.initial}

    def run(self, at: Point, direction: Floats, penalty: Penalty, state: State) -> Evaluate:
        """Take a proximal step from the extrapolated point; where that raises the objective, one from ``at``."""
        ahead = at if state["ahead"] is None else Point(**state["ahead"])
        t, length = state["t"], state["length"]
        found = yield from self._step(at, ahead, t, length, penalty)
        if found is None and ahead is not at:
            t, found = 1.0, (yield from self._step(at, at, 1.0, self.initial, penalty))
        if found is None:
            return at, self.init(at.coef)
        point, extrapolated, length = found
        uphill = float((ahead.coef - point.coef) @ (point.coef - at.coef)) > 0
        after = point if uphill else extrapolated
        return point, {
            "ahead": {
                "coef": after.coef,
                "value": after.value,
                "smooth": after.smooth,
                "gradient": after.gradient,
            },
            "t": 1.0 if uphill else _next_t(t),
            "length": length * self.growth,
        }

    def _step(
        self, at: Point, ahead: Point, t: float, length: float, penalty: Penalty
    ) -> Generator[Ask, list[Point], tuple[Point, Point, float] | None]:
        for _ in range(self.max_trials):
            coef = penalty.prox(ahead.coef - length * ahead.gradient, length)
            extrapolated = coef + (t - 1) / _next_t(t) * (coef - at.coef)
            point, further = yield Ask([coef, extrapolated])
            move = coef - ahead.coef
            bound = ahead.smooth + float(ahead.gradient @ move) + float(move @ move) / (2 * length)
            if point.is_finite and further.is_finite and point.smooth <= bound + 1e-14 * abs(bound):
                return point, further, length
            length *= self.shrink
        return None


def _next_t(t: float) -> float:
    return 0.5 * (1.0 + float(np.sqrt(1.0 + 4.0 * t * t)))
