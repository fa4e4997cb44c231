"""FISTA: accelerated proximal gradient descent."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

import numpy as np

from sparkopt.optim.base import Evaluate, Point, Search
from sparkopt.optim.request import Gradients, Request
from sparkopt.typing import Floats, State
from sparkopt.validation import Interval, check
from sparkopt.values import dataclass

if TYPE_CHECKING:
    from sparkopt.penalties import Penalty

__all__ = ["AcceleratedProximal"]

UNIT = Interval(0, 1, closed="neither")
POSITIVE = Interval(0, None, closed="neither")
COUNT = Interval(1, None, whole=True)


@dataclass(frozen=True)
class AcceleratedProximal(Search):
    """FISTA with backtracking (Beck & Teboulle, 2009, §4) and adaptive restart (O'Donoghue & Candès, 2015, §3.2).

    Each step needs the objective at the new coefficients and the gradient at the extrapolated ones: both are in one
    request, so a step costs one pass over the data. The chain's direction is ignored, since it is of the gradient at
    the coefficients.

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

    def __post_init__(self) -> None:
        check("initial", self.initial, POSITIVE)
        check("shrink", self.shrink, UNIT)
        check("growth", self.growth, Interval(1, None))
        check("max_trials", self.max_trials, COUNT)

    def serves(self, penalty: Penalty) -> bool:
        """Return True: a proximal step is taken for the nonsmooth part."""
        return True

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
    ) -> Generator[Request, list[Point], tuple[Point, Point, float] | None]:
        for _ in range(self.max_trials):
            coef = penalty.prox(ahead.coef - length * ahead.gradient, length)
            extrapolated = coef + (t - 1) / _next_t(t) * (coef - at.coef)
            point, further = yield Gradients(np.stack([coef, extrapolated]))
            step = coef - ahead.coef
            bound = ahead.smooth + float(ahead.gradient @ step) + float(step @ step) / (2 * length)
            if point.is_finite and point.smooth <= bound + 1e-14 * abs(bound):
                # beyond the domain of the loss (or the range of its numbers) nothing can be extrapolated
                return point, further if _is_usable(further) else point, length
            length *= self.shrink
        return None


def _is_usable(point: Point) -> bool:
    """Whether a gradient step may start here, even outside the penalty's bounds."""
    return bool(np.isfinite(point.smooth) and np.isfinite(point.gradient).all())


def _next_t(t: float) -> float:
    return 0.5 * (1.0 + float(np.sqrt(1.0 + 4.0 * t * t)))
